import tracer

project = "Doors"
extensions = ["myst_parser", "sphinx_gallery.gen_gallery", "tracer"]
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "image_scrapers": (tracer.sphinx_gallery_scraper,),
    "plot_gallery": True,
    "filename_pattern": "",
    "download_all_examples": False,
    "show_signature": False,
}
suppress_warnings = ["config.cache"]
