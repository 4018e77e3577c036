"""`srpo prepare`: a benchmark, from the hub or from local files, as verl parquet with a manifest beside it."""
