-- The results table of Carlini et al. 2022 and its talk (256 shadow models), and the rows that are shown after it.
--
-- A printed dash is NULL. Rows that the table does not have are here once, without a data set.
--
--   place              order of the rows
--   row                as in the talk
--   attack             the named attack that stands for it
--   data_set           cifar10, cifar100 or wikitext103
--   balanced_accuracy  as published, as a fraction, and so the rates
--   tpr_at_0_1pct      at 0.1% FPR
--   tpr_at_0_001pct    at 0.001% FPR
create view _published as
select
    v.place,
    v.row,
    v.attack,
    v.data_set,
    v.balanced_accuracy::double as balanced_accuracy,
    v.tpr_at_0_1pct::double as tpr_at_0_1pct,
    v.tpr_at_0_001pct::double as tpr_at_0_001pct
from (
    values
        (1, 'Yeom et al.', 'loss', 'cifar10', 0.594, 0.000, 0.000),
        (1, 'Yeom et al.', 'loss', 'cifar100', 0.780, 0.000, 0.000),
        (1, 'Yeom et al.', 'loss', 'wikitext103', 0.500, 0.001, 0.000),
        (2, 'Shokri et al.', 'shokri', 'cifar10', 0.596, 0.003, 0.000),
        (2, 'Shokri et al.', 'shokri', 'cifar100', 0.745, 0.016, 0.000),
        (2, 'Shokri et al.', 'shokri', 'wikitext103', null, null, null),
        (3, 'Jayaraman et al.', 'morgan', 'cifar10', 0.594, 0.000, 0.000),
        (3, 'Jayaraman et al.', 'morgan', 'cifar100', 0.769, 0.000, 0.000),
        (3, 'Jayaraman et al.', 'morgan', 'wikitext103', null, null, null),
        (4, 'Jayaraman et al., Merlin', 'merlin', null, null, null, null),
        (5, 'Song & Mittal', 'modified_entropy', 'cifar10', 0.595, 0.001, 0.000),
        (5, 'Song & Mittal', 'modified_entropy', 'cifar100', 0.773, 0.014, 0.000),
        (5, 'Song & Mittal', 'modified_entropy', 'wikitext103', null, null, null),
        (6, 'Sablayrolles et al.', 'sablayrolles', 'cifar10', 0.563, 0.017, 0.001),
        (6, 'Sablayrolles et al.', 'sablayrolles', 'cifar100', 0.691, 0.074, 0.008),
        (6, 'Sablayrolles et al.', 'sablayrolles', 'wikitext103', 0.657, 0.010, 0.0001),
        (7, 'Long et al.', 'long', 'cifar10', 0.535, 0.022, 0.000),
        (7, 'Long et al.', 'long', 'cifar100', 0.545, 0.047, 0.000),
        (7, 'Long et al.', 'long', 'wikitext103', null, null, null),
        (8, 'Watson et al.', 'watson', 'cifar10', 0.591, 0.013, 0.001),
        (8, 'Watson et al.', 'watson', 'cifar100', 0.701, 0.054, 0.009),
        (8, 'Watson et al.', 'watson', 'wikitext103', 0.654, 0.011, 0.0002),
        (9, 'Ye et al.', 'ye', 'cifar10', 0.603, null, null),
        (9, 'Ye et al.', 'ye', 'cifar100', 0.769, null, null),
        (9, 'Ye et al.', 'ye', 'wikitext103', 0.655, null, null),
        (10, 'LiRA', 'lira_online', 'cifar10', 0.638, 0.084, 0.022),
        (10, 'LiRA', 'lira_online', 'cifar100', 0.826, 0.276, 0.112),
        (10, 'LiRA', 'lira_online', 'wikitext103', 0.656, 0.014, 0.0009),
        (11, 'RMIA (Zarifzadeh et al.)', 'rmia', null, null, null, null),
        (12, 'RMIA, offline', 'rmia_offline', null, null, null, null),
        (13, 'Quantile regression (Bertran et al.)', 'quantile', null, null, null, null),
        (14, 'Ye et al., population', 'ye_population', null, null, null, null),
        (15, 'LiRA, offline', 'lira_offline', null, null, null, null),
        (16, 'LiRA, global variance', 'lira_online_fixed', null, null, null, null),
        (17, 'LiRA, offline, global variance', 'lira_offline_fixed', null, null, null, null),
        (18, 'LiRA, multivariate', 'lira_online_full', null, null, null, null),
        (19, 'LiRA, shrunk variance', 'lira_online_shrunk', null, null, null, null),
        (20, 'LiRA, offline, shrunk variance', 'lira_offline_shrunk', null, null, null, null)
) as v(place, row, attack, data_set, balanced_accuracy, tpr_at_0_1pct, tpr_at_0_001pct);
