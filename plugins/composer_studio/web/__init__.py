"""``composer web``: a page to play with. It needs the extra ``web``, which is Gradio."""
