-- The ablation of the talk of Carlini et al. 2022: TPR at 0.1% FPR on CIFAR-10, step by step in three chains.
--
--   place    order of the chains
--   chain    which examples' models set the threshold
--   step     from 1
--   adds     what this step adds to the one before
--   attack   its point of the algebra
--   same_as  the named attack that is the same computation, if there is one
--   tpr      as published, as a fraction
create view _published_ablation as
select v.place, v.chain, v.step::bigint as step, v.adds, v.attack, v.same_as, v.tpr::double as tpr
from (
    values
        (1, 'no per-example threshold', 1, 'LOSS', 'ablation_global_loss', 'loss', 0.000),
        (1, 'no per-example threshold', 2, 'logit scaling', 'ablation_global_phi', null, 0.001),
        (1, 'no per-example threshold', 3, 'multiple queries', 'ablation_global_phi_all', null, 0.001),
        (2, 'OUT only', 1, 'LOSS', 'ablation_global_loss', 'loss', 0.000),
        (2, 'OUT only', 2, 'per-example thresholds (OUT)', 'ablation_out_loss', 'watson', 0.013),
        (2, 'OUT only', 3, 'logit scaling', 'ablation_out_phi', null, 0.047),
        (2, 'OUT only', 4, 'Gaussian likelihood', 'ablation_out_gauss', null, 0.047),
        (2, 'OUT only', 5, 'multiple queries', 'ablation_out_gauss_all', 'lira_offline', 0.071),
        (3, 'IN and OUT', 1, 'LOSS', 'ablation_global_loss', 'loss', 0.000),
        (3, 'IN and OUT', 2, 'per-example thresholds (IN & OUT)', 'ablation_inout_loss', 'sablayrolles', 0.017),
        (3, 'IN and OUT', 3, 'logit scaling', 'ablation_inout_phi', null, 0.019),
        (3, 'IN and OUT', 4, 'Gaussian likelihood', 'ablation_inout_gauss', null, 0.056),
        (3, 'IN and OUT', 5, 'multiple queries', 'ablation_inout_gauss_all', 'lira_online', 0.084)
) as v(place, chain, step, adds, attack, same_as, tpr);
