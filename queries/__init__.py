"""The public views and macros, one .sql file each: its first comment says what it answers.

A file is one DuckDB statement over schema `stored`, which `lirastore.catalog` fills from a store. Files whose
names start with an underscore are building blocks of the others. In a macro every column is qualified
(`s.attack`), because DuckDB puts the argument in the place of any bare name that equals a parameter.
"""
