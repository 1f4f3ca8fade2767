# Composer on a CPU:
#   docker build -t composer --build-arg PIP_EXTRA_INDEX_URL=<index of PyTorch's CPU builds> .
#   docker run --rm -v "$PWD:/pictures" --user "$(id -u):$(id -g)" composer anagram 6 9
FROM python:3.12-slim

ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 HOME=/tmp
# PyTorch's page "Start locally" names the index. Its CPU build is a tenth of the default one.
ARG PIP_EXTRA_INDEX_URL=""
RUN --mount=type=bind,target=/source,rw \
    pip install -c /source/constraints.txt \
        torch==2.13.0 "/source[web,video]"

RUN useradd --create-home composer
USER composer
WORKDIR /pictures
ENTRYPOINT ["composer"]
CMD ["--help"]
