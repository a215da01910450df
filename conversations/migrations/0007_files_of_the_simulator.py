"""Queue the removal of a simulated phone's file when the last exchange that names it is deleted, by whatever way."""

from __future__ import annotations

from django.db import migrations

# After the statement: of several rows that go at once, none is there any more. `conversation` is the account's id.
REMOVE_FILES = """
CREATE FUNCTION note_simulated_file_removal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM simulated_exchanges e
        WHERE e.client_id = OLD.client_id AND e.account_id = OLD.account_id
          AND e.details -> 'file' ->> 'id' = OLD.details -> 'file' ->> 'id')
    THEN
        INSERT INTO media_removals (client_id, attachment, conversation, due_at)
        VALUES (OLD.client_id, (OLD.details -> 'file' ->> 'id')::uuid, OLD.account_id, now())
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER simulated_exchanges_leave_no_files AFTER DELETE ON simulated_exchanges
    FOR EACH ROW WHEN (OLD.details ? 'file') EXECUTE FUNCTION note_simulated_file_removal();
"""
UNDO = """
DROP TRIGGER simulated_exchanges_leave_no_files ON simulated_exchanges;
DROP FUNCTION note_simulated_file_removal();
"""


class Migration(migrations.Migration):
    """The trigger."""

    dependencies = [("conversations", "0006_api_key_uses")]

    operations = [migrations.RunSQL(REMOVE_FILES, UNDO)]
