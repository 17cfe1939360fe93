-- The committed models, with what their training jobs recorded.
--
--   model           row of the store's arrays
--   committed_at    when it was sealed, UTC
--   train_accuracy  as recorded by the training job; NULL if it recorded none, or no number
--   test_accuracy   likewise
--   examples_in     how many examples it was trained on
--   seed            as recorded by the training job
--   source_id       its name where it came from
--   pipeline        which pipeline trained it, and by which recipe
--   recipe          likewise
--   seconds         that its training and inference took, as recorded
--   device          that it was trained on, as recorded
--   metadata        everything that was recorded, as JSON
create view models as
select
    m.model,
    m.committed_at,
    try_cast(m.metadata ->> '$.train_accuracy' as double) as train_accuracy,
    try_cast(m.metadata ->> '$.test_accuracy' as double) as test_accuracy,
    bit_count(m.members) as examples_in,
    try_cast(m.metadata ->> '$.seed' as bigint) as seed,
    m.metadata ->> '$.source_id' as source_id,
    m.metadata ->> '$.pipeline' as pipeline,
    m.metadata ->> '$.recipe' as recipe,
    try_cast(m.metadata ->> '$.seconds' as double) as seconds,
    m.metadata ->> '$.device' as device,
    m.metadata
from stored.models as m;
