# Composer on a CPU:
#   docker build -t composer .
#   docker run --rm -v "$PWD:/pictures" --user "$(id -u):$(id -g)" composer anagram 6 9
FROM python:3.12-slim

ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 HOME=/tmp
# The CPU build of torch is a tenth of the default one.
RUN --mount=type=bind,target=/source,rw \
    pip install -c /source/constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu \
        "torch==2.13.0+cpu" "/source[web,video]"

RUN useradd --create-home composer
USER composer
WORKDIR /pictures
ENTRYPOINT ["composer"]
CMD ["--help"]
