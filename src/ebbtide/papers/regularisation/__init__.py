"""Study `regularisation`: two papers say opposite things of L2 and ICL; both settings side by side."""
