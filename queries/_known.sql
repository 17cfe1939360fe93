-- True if there is such a committed model and such an example; otherwise an error.
create macro _known(model, example) as
case
    when model is null or model not in (select m.model from stored.models as m)
        then error(
            'model is ' || coalesce(model::varchar, 'NULL') || ', expected a committed model: '
            || coalesce(
                (
                    select count(*) || ' from ' || min(m.model) || ' to ' || max(m.model) || ', which view models lists'
                    from stored.models as m
                    having count(*) > 0
                ),
                'there is none yet'
            )
        )
    when example is null or example not in (select e.example from stored.examples as e)
        then error(
            'example is ' || coalesce(example::varchar, 'NULL') || ', expected a row of the store''s arrays: '
            || (select min(e.example) || ' to ' || max(e.example) from stored.examples as e)
            || ', which view examples lists'
        )
    else true
end;
