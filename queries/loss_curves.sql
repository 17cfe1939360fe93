-- The training loss of every committed model, epoch by epoch, where its training job recorded it (`loss_curve`).
--
--   model  row of the store's arrays
--   epoch  from 1
--   loss   mean over the epoch, nats
create view loss_curves as
select
    m.model,
    l.epoch,
    l.loss
from
    stored.models as m,
    unnest(try_cast(m.metadata -> '$.loss_curve' as double[])) with ordinality as l (loss, epoch)
order by m.model, l.epoch;
