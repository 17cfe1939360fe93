-- The attacks that have been run, and from what. Those with few shadow models are in view power.
--
--   attack      name of the attack
--   preset      whose numerics: paper, or the code that is imitated
--   models      how many models it was computed from
--   stale       true if models have been committed or discarded since
--   seconds     how long it took
--   bytes_read  how much of the store it read
--   parameters  what defines it, with equal_counts and seed, as JSON
create view attacks as
select a.attack, a.preset, a.models, a.stale, a.seconds, a.bytes_read, a.parameters
from stored.attacks as a
where a.kind <> 'power';
