-- The key of pseudonyms was the epoch, which a restored registry must not keep; the key it must: users have the same
-- pseudonym before and after.
ALTER TABLE meta ADD COLUMN pseudonym_key TEXT NOT NULL DEFAULT '';
UPDATE meta SET pseudonym_key = epoch;
