"""`holdfast import`: a purchase log becomes orders, through the HTTP API, and the books must agree."""
