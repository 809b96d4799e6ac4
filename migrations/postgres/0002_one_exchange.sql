-- An entry of a usual length lies in its row as it is: compressing it took more of the database's
-- time than all the rest of writing it, and saved a fifth of its bytes.
ALTER TABLE entries SET (toast_tuple_target = 8160);
ALTER TABLE entries ALTER COLUMN entry SET STORAGE EXTERNAL;

-- A batch is written in one statement that names the head which it follows. Whoever has asked what
-- became of such a statement raises the fence: should it arrive only then, it changes nothing.
ALTER TABLE head ADD COLUMN fence bigint NOT NULL DEFAULT 0;

-- New terms wait in a list that the insert which finds it full moves into the index, while everyone
-- waits for that insert: a short list, a short wait.
ALTER INDEX entries_terms SET (gin_pending_list_limit = 128);
