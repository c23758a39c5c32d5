/* The store in a SQLite file.
 *
 * One process at a time: the connection holds the file exclusively, which also spares
 * the shared-memory index. WAL with synchronous=NORMAL: a transaction is one append to
 * the log without fsync; a power cut may lose the last ones, a crash of this process
 * none. A clean close folds the log into the file and removes it, so a log found at
 * opening tells of a crash, and only then the file is checked.
 */
#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/str.h"
#include "store/provider.h"

#define APPLICATION_ID  0x49534c45 /* "ISLE" */
#define SCHEMA_VERSION  1
#define BUSY_TIMEOUT_MS 2000 /* a predecessor may be on its way out */

enum statement {
        STATEMENT_GET,
        STATEMENT_REVISION_OF,
        STATEMENT_LIST,
        STATEMENT_LIST_LEASE,
        STATEMENT_PUT,
        STATEMENT_DELETE,
        STATEMENT_SET_REVISION,
        STATEMENT_LEASE_PUT,
        STATEMENT_LEASE_DELETE,
        STATEMENT_BEGIN,
        STATEMENT_COMMIT,
        STATEMENT_ROLLBACK,
        STATEMENTS,
};

#define COLUMNS "key, data, create_revision, mod_revision, lease"

static const char *const statement_texts[] = {
        [STATEMENT_GET] = "SELECT " COLUMNS " FROM kv WHERE key = ?1",
        [STATEMENT_REVISION_OF] = "SELECT mod_revision FROM kv WHERE key = ?1",
        /* Keys are printable, so nothing sorts behind the prefix and a DEL. */
        [STATEMENT_LIST] = "SELECT " COLUMNS " FROM kv WHERE key >= ?1 AND key < ?1 || x'7f' "
                           "ORDER BY key",
        [STATEMENT_LIST_LEASE] = "SELECT " COLUMNS " FROM kv WHERE lease = ?2 AND lease != 0 "
                                 "AND key >= ?1 AND key < ?1 || x'7f' ORDER BY key",
        [STATEMENT_PUT] = "INSERT INTO kv (" COLUMNS ") VALUES (?1, ?2, ?3, ?3, ?4) "
                          "ON CONFLICT (key) DO UPDATE SET data = excluded.data, "
                          "mod_revision = excluded.mod_revision, lease = excluded.lease",
        [STATEMENT_DELETE] = "DELETE FROM kv WHERE key = ?1",
        [STATEMENT_SET_REVISION] = "UPDATE revision SET value = ?1",
        [STATEMENT_LEASE_PUT] = "INSERT INTO lease (id, ttl_ns) VALUES (?1, ?2)",
        [STATEMENT_LEASE_DELETE] = "DELETE FROM lease WHERE id = ?1",
        [STATEMENT_BEGIN] = "BEGIN IMMEDIATE",
        [STATEMENT_COMMIT] = "COMMIT",
        [STATEMENT_ROLLBACK] = "ROLLBACK",
};
static_assert(ELEMENTS(statement_texts) == STATEMENTS, "a text for every statement");

static const char schema[] =
        "BEGIN EXCLUSIVE;"
        "CREATE TABLE kv (key TEXT NOT NULL UNIQUE, data BLOB NOT NULL,"
        " create_revision INTEGER NOT NULL, mod_revision INTEGER NOT NULL,"
        " lease INTEGER NOT NULL) STRICT;"
        "CREATE INDEX kv_lease ON kv (lease) WHERE lease != 0;"
        "CREATE TABLE revision (value INTEGER NOT NULL) STRICT;"
        "INSERT INTO revision VALUES (0);"
        "CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl_ns INTEGER NOT NULL) STRICT;"
        "PRAGMA application_id = 1230195781;" /* APPLICATION_ID */
        "PRAGMA user_version = 1;"            /* SCHEMA_VERSION */
        "COMMIT;";
static_assert(APPLICATION_ID == 1230195781 && SCHEMA_VERSION == 1, "as in the schema");

struct sqlite {
        sqlite3 *db;
        char *path;
        sqlite3_stmt *statements[STATEMENTS];
};

/* --- errors --- */

static int damaged(const char *path, const char *what, struct err *err)
{
        return err_plain(err, EUCLEAN,
                         "state database '%s' is damaged (%s); stop isled, then restore the file "
                         "from a backup, or move it and '%s-wal' aside to start empty",
                         path, what, path);
}

/* Turns what SQLite last complained about into an error of ours. */
static int fail(const struct sqlite *sqlite, const char *action, struct err *err)
{
        const char *path = sqlite->path;
        int code = sqlite3_errcode(sqlite->db);
        int system = sqlite3_system_errno(sqlite->db);
        switch (code) {
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
                return damaged(path, sqlite3_errmsg(sqlite->db), err);
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
                return err_plain(err, EBUSY,
                                 "state database '%s' is in use by another process; is another "
                                 "isled running?",
                                 path);
        case SQLITE_FULL:
                return err_plain(err, ENOSPC,
                                 "%s state database '%s': no space left; free some on its file "
                                 "system and try again",
                                 action, path);
        case SQLITE_READONLY:
                return err_plain(err, EROFS,
                                 "%s state database '%s': it or its directory is read-only", action,
                                 path);
        case SQLITE_IOERR:
        case SQLITE_CANTOPEN:
                if (system == ENOSPC || system == EDQUOT)
                        return err_plain(err, ENOSPC,
                                         "%s state database '%s': no space left; free some on its "
                                         "file system and try again",
                                         action, path);
                return err_set(err, system ? system : EIO, "%s state database '%s' and its '-wal'",
                               action, path);
        case SQLITE_NOMEM:
                return err_set(err, ENOMEM, "%s state database '%s'", action, path);
        default:
                return err_plain(err, EIO, "%s state database '%s': %s", action, path,
                                 sqlite3_errmsg(sqlite->db));
        }
}

/* --- statements --- */

/* A statement ready for binding. NULL with the error in the database. */
static sqlite3_stmt *prepared(struct sqlite *sqlite, enum statement which)
{
        sqlite3_stmt **slot = &sqlite->statements[which];
        if (!*slot && sqlite3_prepare_v3(sqlite->db, statement_texts[which], -1,
                                         SQLITE_PREPARE_PERSISTENT, slot, NULL) != SQLITE_OK)
                return NULL;
        return *slot;
}

/* Ends a statement that was stepped; its memory is given back. */
static void done(sqlite3_stmt *statement)
{
        sqlite3_reset(statement);
        sqlite3_clear_bindings(statement);
}

/* Steps a statement that returns no rows. */
static int run(sqlite3_stmt *statement)
{
        if (!statement)
                return -1;
        int code = sqlite3_step(statement);
        done(statement);
        return code == SQLITE_DONE ? 0 : -1;
}

static void bind_text(sqlite3_stmt *statement, int index, const char *text)
{
        sqlite3_bind_text(statement, index, text, -1, SQLITE_STATIC);
}

static struct store_value read_row(sqlite3_stmt *statement)
{
        const char *key = (const char *)sqlite3_column_text(statement, 0);
        const void *data = sqlite3_column_blob(statement, 1);
        struct store_value value = store_value_make(key ? key : "", data,
                                                    (size_t)sqlite3_column_bytes(statement, 1));
        value.create_revision = (uint64_t)sqlite3_column_int64(statement, 2);
        value.mod_revision = (uint64_t)sqlite3_column_int64(statement, 3);
        value.lease = (uint64_t)sqlite3_column_int64(statement, 4);
        return value;
}

/* --- the provider --- */

static int sqlite_get(void *self, const char *key, struct store_value *ret,
                      uint64_t *ret_mod_revision, struct err *err)
{
        struct sqlite *sqlite = self;
        sqlite3_stmt *statement = prepared(sqlite, ret ? STATEMENT_GET : STATEMENT_REVISION_OF);
        if (!statement)
                return fail(sqlite, "read", err);
        bind_text(statement, 1, key);
        int code = sqlite3_step(statement);
        int r = 0;
        if (code == SQLITE_ROW) {
                if (ret_mod_revision)
                        *ret_mod_revision = (uint64_t)sqlite3_column_int64(statement, ret ? 3 : 0);
                if (ret)
                        *ret = read_row(statement);
        } else {
                r = code == SQLITE_DONE ? -ENOENT : fail(sqlite, "read", err);
        }
        done(statement);
        return r;
}

static int sqlite_list(void *self, const char *prefix, uint64_t lease, struct store_value **ret,
                       size_t *ret_length, struct err *err)
{
        struct sqlite *sqlite = self;
        struct store_value *values = NULL;
        size_t length = 0;
        sqlite3_stmt *statement = prepared(sqlite, lease ? STATEMENT_LIST_LEASE : STATEMENT_LIST);
        if (!statement)
                return fail(sqlite, "read", err);
        bind_text(statement, 1, prefix);
        if (lease)
                sqlite3_bind_int64(statement, 2, (sqlite3_int64)lease);
        int code;
        while ((code = sqlite3_step(statement)) == SQLITE_ROW)
                store_values_push(&values, &length, read_row(statement));
        int r = code == SQLITE_DONE ? 0 : fail(sqlite, "read", err);
        done(statement);
        if (r < 0) {
                store_values_free(values, length);
                return r;
        }
        *ret = values;
        *ret_length = length;
        return 0;
}

static int apply_op(struct sqlite *sqlite, const struct store_op *op, uint64_t revision)
{
        sqlite3_stmt *statement = prepared(sqlite, op->kind == STORE_PUT ? STATEMENT_PUT
                                                                         : STATEMENT_DELETE);
        if (!statement)
                return -1;
        bind_text(statement, 1, op->key);
        if (op->kind == STORE_PUT) {
                sqlite3_bind_blob64(statement, 2, op->data ? op->data : "", op->size,
                                    SQLITE_STATIC);
                sqlite3_bind_int64(statement, 3, (sqlite3_int64)revision);
                sqlite3_bind_int64(statement, 4, (sqlite3_int64)op->lease);
        }
        return run(statement);
}

static int set_revision(struct sqlite *sqlite, uint64_t revision)
{
        sqlite3_stmt *statement = prepared(sqlite, STATEMENT_SET_REVISION);
        if (!statement)
                return -1;
        sqlite3_bind_int64(statement, 1, (sqlite3_int64)revision);
        return run(statement);
}

static int sqlite_apply(void *self, const struct store_op *ops, size_t length, uint64_t revision,
                        struct err *err)
{
        struct sqlite *sqlite = self;
        int r = run(prepared(sqlite, STATEMENT_BEGIN));
        if (r < 0)
                return fail(sqlite, "write", err);
        for (size_t i = 0; i < length && r == 0; i++)
                r = apply_op(sqlite, &ops[i], revision);
        if (r == 0)
                r = set_revision(sqlite, revision);
        if (r == 0)
                r = run(prepared(sqlite, STATEMENT_COMMIT));
        if (r < 0) {
                r = fail(sqlite, "write", err);
                if (!sqlite3_get_autocommit(sqlite->db))
                        run(prepared(sqlite, STATEMENT_ROLLBACK));
        }
        return r;
}

static int sqlite_lease_put(void *self, const struct store_lease *lease, struct err *err)
{
        struct sqlite *sqlite = self;
        sqlite3_stmt *statement = prepared(sqlite, STATEMENT_LEASE_PUT);
        if (statement) {
                sqlite3_bind_int64(statement, 1, (sqlite3_int64)lease->id);
                sqlite3_bind_int64(statement, 2, lease->ttl_ns);
        }
        return run(statement) < 0 ? fail(sqlite, "write", err) : 0;
}

static int sqlite_lease_delete(void *self, uint64_t id, struct err *err)
{
        struct sqlite *sqlite = self;
        sqlite3_stmt *statement = prepared(sqlite, STATEMENT_LEASE_DELETE);
        if (statement)
                sqlite3_bind_int64(statement, 1, (sqlite3_int64)id);
        return run(statement) < 0 ? fail(sqlite, "write", err) : 0;
}

static void sqlite_close(void *self)
{
        struct sqlite *sqlite = self;
        for (size_t i = 0; i < STATEMENTS; i++)
                sqlite3_finalize(sqlite->statements[i]);
        sqlite3_close(sqlite->db);
        free(sqlite->path);
        free(sqlite);
}

static const struct store_provider sqlite_provider = {
        .name = "sqlite",
        .close = sqlite_close,
        .get = sqlite_get,
        .list = sqlite_list,
        .apply = sqlite_apply,
        .lease_put = sqlite_lease_put,
        .lease_delete = sqlite_lease_delete,
};

/* --- opening --- */

/* The file is made here rather than by SQLite, whose errors do not tell why. */
static int touch(const char *path, struct err *err)
{
        auto_fd fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
        if (fd < 0)
                return err_set(err, errno, "open state database '%s'", path);
        struct stat st;
        if (fstat(fd, &st) < 0)
                return err_set(err, errno, "open state database '%s'", path);
        if (!S_ISREG(st.st_mode))
                return err_plain(err, EMEDIUMTYPE, "state database '%s' is not a file", path);
        return 0;
}

static bool crashed_before(const char *path)
{
        auto_free char *log = xasprintf("%s-wal", path);
        struct stat st;
        return stat(log, &st) == 0 && st.st_size > 0;
}

/* The first column of the first row, as a number or as text (heap). */
static int query(struct sqlite *sqlite, const char *text, int64_t *ret_number, char **ret_text,
                 struct err *err)
{
        sqlite3_stmt *statement = NULL;
        int r = -1;
        if (sqlite3_prepare_v2(sqlite->db, text, -1, &statement, NULL) == SQLITE_OK) {
                int code = sqlite3_step(statement);
                if (code == SQLITE_ROW) {
                        const char *column = (const char *)sqlite3_column_text(statement, 0);
                        if (ret_number)
                                *ret_number = sqlite3_column_int64(statement, 0);
                        if (ret_text)
                                *ret_text = xstrdup(column ? column : "");
                        r = 0;
                } else if (code == SQLITE_DONE) {
                        sqlite3_finalize(statement);
                        return damaged(sqlite->path, "a row is missing", err);
                }
        }
        if (r < 0)
                r = fail(sqlite, "open", err);
        sqlite3_finalize(statement);
        return r;
}

static int check_integrity(struct sqlite *sqlite, struct err *err)
{
        auto_free char *verdict = NULL;
        int r = query(sqlite, "PRAGMA quick_check(1)", NULL, &verdict, err);
        if (r == 0 && !streq(verdict, "ok"))
                r = damaged(sqlite->path, verdict, err);
        return r;
}

/* Whose file is it? Makes an empty one ours. */
static int check_identity(struct sqlite *sqlite, struct err *err)
{
        int64_t application = 0, version = 0, tables = 0;
        int r = query(sqlite, "PRAGMA application_id", &application, NULL, err);
        if (r == 0)
                r = query(sqlite, "PRAGMA user_version", &version, NULL, err);
        if (r == 0)
                r = query(sqlite, "SELECT count(*) FROM sqlite_schema", &tables, NULL, err);
        if (r < 0)
                return r;
        if (application == 0 && version == 0 && tables == 0)
                return sqlite3_exec(sqlite->db, schema, NULL, NULL, NULL) == SQLITE_OK
                               ? 0
                               : fail(sqlite, "create", err);
        if (application != APPLICATION_ID)
                return err_plain(err, EMEDIUMTYPE,
                                 "'%s' is a SQLite file, but not a state database of isle",
                                 sqlite->path);
        if (version != SCHEMA_VERSION)
                return err_plain(err, EMEDIUMTYPE,
                                 "state database '%s' has version %" PRId64 ", this isle knows %d; "
                                 "use the newer isle that wrote it",
                                 sqlite->path, version, SCHEMA_VERSION);
        return 0;
}

static int read_leases(struct sqlite *sqlite, struct store_lease **ret, size_t *ret_length,
                       struct err *err)
{
        sqlite3_stmt *statement = NULL;
        struct store_lease *leases = NULL;
        size_t length = 0;
        int code = sqlite3_prepare_v2(sqlite->db, "SELECT id, ttl_ns FROM lease", -1, &statement,
                                      NULL);
        while (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
                leases = xrealloc(leases, length + 1, sizeof(*leases));
                leases[length++] = (struct store_lease){
                        .id = (uint64_t)sqlite3_column_int64(statement, 0),
                        .ttl_ns = sqlite3_column_int64(statement, 1),
                };
                code = SQLITE_OK;
        }
        int r = code == SQLITE_DONE ? 0 : fail(sqlite, "read", err);
        sqlite3_finalize(statement);
        if (r < 0) {
                free(leases);
                return r;
        }
        *ret = leases;
        *ret_length = length;
        return 0;
}

static int connect_file(struct sqlite *sqlite, struct err *err)
{
        int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
        if (sqlite3_open_v2(sqlite->path, &sqlite->db, flags, NULL) != SQLITE_OK)
                return fail(sqlite, "open", err);
        sqlite3_busy_timeout(sqlite->db, BUSY_TIMEOUT_MS);
        sqlite3_db_config(sqlite->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        /* The cache is small because the daemon is; the records it wants are few and hot.
         * The file is no friend until checked: no functions from its schema. */
        static const char settings[] = "PRAGMA trusted_schema = OFF;"
                                       "PRAGMA cell_size_check = ON;"
                                       "PRAGMA mmap_size = 0;"
                                       "PRAGMA cache_size = -256;"
                                       "PRAGMA locking_mode = EXCLUSIVE;"
                                       "PRAGMA journal_mode = WAL;"
                                       "PRAGMA synchronous = NORMAL;"
                                       "PRAGMA journal_size_limit = 4194304;"
                                       /* Takes the lock, and shows that we may write. */
                                       "BEGIN IMMEDIATE; COMMIT;";
        if (sqlite3_exec(sqlite->db, settings, NULL, NULL, NULL) != SQLITE_OK)
                return fail(sqlite, "open", err);
        return 0;
}

int store_open_sqlite(const char *path, struct store **ret, struct err *err)
{
        struct store_lease *leases = NULL;
        size_t leases_length = 0;
        int64_t revision = 0;
        int r = touch(path, err);
        if (r < 0)
                return r;
        bool must_check = crashed_before(path);
        struct sqlite *sqlite = new0(struct sqlite);
        sqlite->path = xstrdup(path);
        r = connect_file(sqlite, err);
        if (r == 0 && must_check)
                r = check_integrity(sqlite, err);
        if (r == 0)
                r = check_identity(sqlite, err);
        if (r == 0)
                r = query(sqlite, "SELECT value FROM revision", &revision, NULL, err);
        if (r == 0 && revision < 0)
                r = damaged(path, "negative revision", err);
        if (r == 0)
                r = read_leases(sqlite, &leases, &leases_length, err);
        if (r < 0) {
                sqlite_close(sqlite);
                return r;
        }
        store_create(&sqlite_provider, sqlite, (uint64_t)revision, leases, leases_length, ret);
        return 0;
}
