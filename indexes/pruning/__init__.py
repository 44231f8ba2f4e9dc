"""Which cells can hold a record that is relevant to a query."""
