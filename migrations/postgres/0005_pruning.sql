-- When the time of a record is over, its body goes and its row stays: place, hash and what they are of
-- hold the chain and the tree together. Nothing else of an entry can be changed, and this only in a
-- transaction that has said `SET LOCAL lexgate.prune = 'on'` and belongs to the table's owner.
CREATE FUNCTION refuse_other_removal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('lexgate.prune', true) IS DISTINCT FROM 'on'
        OR NOT pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE')
        OR NEW.entry <> '' OR NEW.terms <> '{}'
        OR (NEW.seq, NEW.id, NEW.ts, NEW.kind, NEW.leaf) <> (OLD.seq, OLD.id, OLD.ts, OLD.kind, OLD.leaf)
        OR NEW.about IS DISTINCT FROM OLD.about THEN
        RAISE EXCEPTION 'the ledger is append-only: % of % is refused', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
DROP TRIGGER append_only ON entries;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER only_bodies_go BEFORE UPDATE ON entries
    FOR EACH ROW EXECUTE FUNCTION refuse_other_removal();
