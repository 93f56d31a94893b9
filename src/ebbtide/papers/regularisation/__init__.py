"""Study `regularisation`: two papers say opposite things of L2 and ICL; they put it on different weights."""
