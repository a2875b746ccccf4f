-- How much room each table of stepbase takes.
select name, rows, pg_size_pretty(bytes) as size, pg_size_pretty(index_bytes) as of_it_indexes, bytes_per_row
  from stepbase.table_sizes
  where bytes > 0
  order by bytes desc;
