-- True positives at the best qualifying threshold: 0 if none qualifies, NULL without non-members to qualify by.
create macro _most(tp, nonmembers) as
case when nonmembers > 0 then coalesce(tp, 0) end;
