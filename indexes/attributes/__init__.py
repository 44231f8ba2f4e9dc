"""Attributes of records, such as a price or a camera, and the filters that choose records by them.

    attribute_types    the types, and the values of each: what is accepted, what is stored, what is returned
    fixed_types        the types of the attributes of an index, by name
    expressions        `attribute("price") < 20`, and the expressions that this builds
    where_text         the same expressions as text: 'price < 20 and camera in ["a", "b"]'
    bound_filters      an expression for the attributes of one index; it matches values one by one
    numbered_values    the different values of one attribute, by number
    vocabulary         the values of categories, by number
    attribute_rows     the stored row of a record
    attribute_table    the attributes of a snapshot as arrays, for filters over all records
    selections         what a search is limited to: a filter, given ids, or both

A value can be missing. A comparison with a missing value is false, whatever it compares; `not` of it is true, as in
`not (price < 20)`.
"""
