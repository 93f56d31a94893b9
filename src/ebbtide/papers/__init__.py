"""The studies of papers, one package for each paper; `registry` lists them."""
