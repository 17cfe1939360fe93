-- Who was trained on what: one row per committed model and example.
--
--   model    a committed model
--   example  an example
--   member   true if the example was in the model's training set
create view membership as
select
    m.model,
    e.example,
    get_bit(m.members, e.example::integer) = 1 as member
from stored.models as m
cross join stored.examples as e;
