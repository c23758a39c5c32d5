/* What is particular to the file: crashes, damage, disks. */
#include "base/tests/test.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rand.h"
#include "base/str.h"
#include "store/store.h"

struct fixture {
        char directory[64];
        char path[96];
        struct err err;
};

static int setup(void **state)
{
        struct fixture *fixture = new0(struct fixture);
        strcpy(fixture->directory, "/tmp/isle-sqlite-XXXXXX");
        if (!mkdtemp(fixture->directory))
                return -1;
        snprintf(fixture->path, sizeof(fixture->path), "%s/state.db", fixture->directory);
        *state = fixture;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *fixture = *state;
        int r = file_remove_tree(AT_FDCWD, fixture->directory, NULL);
        free(fixture);
        return r;
}

static struct store *open_store(struct fixture *fixture)
{
        struct store *store = NULL;
        if (store_open_sqlite(fixture->path, &store, &fixture->err) < 0)
                fail_msg("%s", err_text(&fixture->err));
        return store;
}

static void assert_refused(struct fixture *fixture, int code, const char *part)
{
        struct store *store = NULL;
        int r = store_open_sqlite(fixture->path, &store, &fixture->err);
        if (r != -code)
                fail_msg("%d instead of %d: %s", r, -code, err_text(&fixture->err));
        assert_null(store);
        if (!strstr(err_text(&fixture->err), part) ||
            !strstr(err_text(&fixture->err), fixture->path))
                fail_msg("'%s' does not say '%s'", err_text(&fixture->err), part);
}

static void state_survives_reopening(void **state)
{
        struct fixture *fixture = *state;
        struct store *store = open_store(fixture);
        uint64_t lease;
        assert_int_equal(store_put(store, "a", "1", 1, NULL), 0);
        assert_int_equal(store_put(store, "b", "2", 1, NULL), 0);
        assert_int_equal(store_delete(store, "b", NULL), 0);
        assert_int_equal(store_lease_grant(store, 3600 * NS_PER_S, &lease, NULL), 0);
        store_close(store);
        struct stat st;
        assert_int_equal(stat(fixture->path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        auto_free char *log = xasprintf("%s-wal", fixture->path);
        assert_int_equal(stat(log, &st), -1);

        store = open_store(fixture);
        assert_int_equal(store_revision(store), 3);
        struct store_value value;
        assert_int_equal(store_get(store, "a", &value, NULL), 0);
        assert_string_equal(value.data, "1");
        store_value_finish(&value);
        assert_int_equal(store_lease_keep(store, lease, NULL), 0);
        /* What was before this opening is not known to watchers. */
        struct store_watch *watch;
        assert_int_equal(store_watch(store, NULL, "", 3, NULL, NULL, &watch, NULL), -ESTALE);
        assert_int_equal(store_watch(store, NULL, "", 4, NULL, NULL, &watch, NULL), 0);
        store_watch_cancel(watch);
        store_close(store);
}

/* Writes pairs that must agree, for ever. */
static void write_pairs(const char *path, int started_fd)
{
        struct store *store;
        if (store_open_sqlite(path, &store, NULL) < 0)
                _exit(1);
        for (unsigned i = 0;; i++) {
                char text[32];
                size_t size = (size_t)snprintf(text, sizeof(text), "%llu",
                                               (unsigned long long)store_revision(store) + 1);
                char key[32];
                snprintf(key, sizeof(key), "k/%u", i % 50);
                const struct store_op ops[] = {
                        { .kind = STORE_PUT, .key = "last", .data = text, .size = size },
                        { .kind = i % 3 == 2 ? STORE_DELETE : STORE_PUT,
                          .key = key,
                          .data = text,
                          .size = size },
                };
                if (store_txn(store, NULL, 0, ops, 2, NULL, NULL) < 0)
                        _exit(2);
                if (i == 10 && write(started_fd, "x", 1) != 1)
                        _exit(3);
        }
}

static void assert_pairs_agree(struct store *store, uint64_t revision)
{
        struct store_value value;
        struct store_value *values;
        size_t length;
        assert_int_equal(store_get(store, "last", &value, NULL), 0);
        assert_int_equal(value.mod_revision, revision);
        assert_int_equal(strtoull(value.data, NULL, 10), revision);
        store_value_finish(&value);
        assert_int_equal(store_list(store, "k/", &values, &length, NULL, NULL), 0);
        for (size_t i = 0; i < length; i++)
                assert_int_equal(strtoull(values[i].data, NULL, 10), values[i].mod_revision);
        store_values_free(values, length);
}

static void killed_writer_leaves_whole_transactions(void **state)
{
        struct fixture *fixture = *state;
        uint64_t revision_before = 0;
        for (int round = 0; round < 25; round++) {
                int started[2];
                char byte;
                assert_int_equal(pipe2(started, O_CLOEXEC), 0);
                pid_t pid = fork();
                if (pid == 0)
                        write_pairs(fixture->path, started[1]);
                close(started[1]);
                assert_int_equal(read(started[0], &byte, 1), 1);
                close(started[0]);
                /* At no particular point of its work. */
                nanosleep(&(struct timespec){ .tv_nsec = (long)(rand_u64() % (5 * NS_PER_MS)) },
                          NULL);
                kill(pid, SIGKILL);
                int status;
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_true(WIFSIGNALED(status));

                struct store *store = open_store(fixture);
                uint64_t revision = store_revision(store);
                assert_true(revision >= revision_before + 11);
                assert_pairs_agree(store, revision);
                revision_before = revision;
                store_close(store);
        }
}

static void second_process_is_kept_out(void **state)
{
        struct fixture *fixture = *state;
        struct store *store = open_store(fixture);
        pid_t pid = fork();
        if (pid == 0) {
                struct store *other;
                struct err err = { 0 };
                int r = store_open_sqlite(fixture->path, &other, &err);
                _exit(r == -EBUSY && strstr(err_text(&err), "in use by another process") ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(store_put(store, "a", "", 0, NULL), 0);
        store_close(store);
}

static void make_file(const struct fixture *fixture, const void *data, size_t size)
{
        assert_int_equal(file_replace(AT_FDCWD, fixture->path, data, size, 0600, false, NULL), 0);
}

static void foreign_files_are_refused(void **state)
{
        struct fixture *fixture = *state;
        char text[5000];
        memset(text, 'x', sizeof(text));
        make_file(fixture, text, sizeof(text));
        assert_refused(fixture, EUCLEAN, "aside to start empty");
        char *data;
        size_t size;
        assert_int_equal(file_read(AT_FDCWD, fixture->path, 10000, &data, &size, NULL), 0);
        assert_int_equal(size, sizeof(text)); /* and left alone */
        free(data);

        assert_int_equal(unlink(fixture->path), 0);
        sqlite3 *db;
        assert_int_equal(sqlite3_open(fixture->path, &db), SQLITE_OK);
        sqlite3_exec(db, "CREATE TABLE bookmarks (url)", NULL, NULL, NULL);
        sqlite3_close(db);
        assert_refused(fixture, EMEDIUMTYPE, "not a state database of isle");

        assert_int_equal(unlink(fixture->path), 0);
        store_close(open_store(fixture));
        sqlite3_open(fixture->path, &db);
        sqlite3_exec(db, "PRAGMA user_version = 7", NULL, NULL, NULL);
        sqlite3_close(db);
        assert_refused(fixture, EMEDIUMTYPE, "has version 7");
}

/* Overwrites a stretch in the middle of the file. */
static void damage(const struct fixture *fixture, off_t offset, size_t size)
{
        auto_fd fd = open(fixture->path, O_WRONLY | O_CLOEXEC);
        auto_free char *rubbish = xmalloc(size);
        memset(rubbish, 0x5a, size);
        assert_int_equal(pwrite(fd, rubbish, size, offset), size);
}

static void damage_is_one_clear_error(void **state)
{
        struct fixture *fixture = *state;
        struct store *store = open_store(fixture);
        char value[1000];
        memset(value, 'v', sizeof(value));
        for (int i = 0; i < 200; i++) {
                char key[16];
                snprintf(key, sizeof(key), "k%d", i);
                assert_int_equal(store_put(store, key, value, sizeof(value), NULL), 0);
        }
        store_close(store);
        /* The schema's page: noticed at once. */
        damage(fixture, 100, 3900);
        assert_refused(fixture, EUCLEAN, "is damaged");

        /* After a crash the rest is looked through too. */
        assert_int_equal(unlink(fixture->path), 0);
        store = open_store(fixture);
        for (int i = 0; i < 200; i++) {
                char key[16];
                snprintf(key, sizeof(key), "k%d", i);
                assert_int_equal(store_put(store, key, value, sizeof(value), NULL), 0);
        }
        store_close(store);
        damage(fixture, 5 * 4096, 20 * 4096);
        int started[2];
        assert_int_equal(pipe2(started, O_CLOEXEC), 0);
        pid_t pid = fork();
        if (pid == 0) { /* leaves a log behind, as a crash does */
                struct store *crashing;
                if (store_open_sqlite(fixture->path, &crashing, NULL) == 0)
                        store_lease_grant(crashing, 1000000000000, &(uint64_t){ 0 }, NULL);
                raise(SIGKILL);
        }
        waitpid(pid, NULL, 0);
        close(started[0]);
        close(started[1]);
        assert_refused(fixture, EUCLEAN, "restore the file");
}

static void reading_damage_later_is_an_error_too(void **state)
{
        struct fixture *fixture = *state;
        struct store *store = open_store(fixture);
        char value[1000];
        memset(value, 'v', sizeof(value));
        for (int i = 0; i < 2000; i++) { /* more than the cache holds */
                char key[16];
                snprintf(key, sizeof(key), "k%04d", i);
                assert_int_equal(store_put(store, key, value, sizeof(value), NULL), 0);
        }
        store_close(store);
        damage(fixture, 100 * 4096, 200 * 4096);
        store = open_store(fixture);
        struct store_value *values;
        size_t length;
        assert_int_equal(store_list(store, "", &values, &length, NULL, &fixture->err), -EUCLEAN);
        assert_non_null(strstr(err_text(&fixture->err), fixture->path));
        store_close(store);
}

static void unusable_places_are_named(void **state)
{
        struct fixture *fixture = *state;
        snprintf(fixture->path, sizeof(fixture->path), "%s/none/state.db", fixture->directory);
        assert_refused(fixture, ENOENT, "No such file or directory");
        snprintf(fixture->path, sizeof(fixture->path), "%s", fixture->directory);
        assert_refused(fixture, EISDIR, "Is a directory");
}

static void mount_tmpfs(const struct fixture *fixture, unsigned long flags, const char *options)
{
        /* In a mount namespace of our own: a test that fails leaves nothing behind. */
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("isle-test", fixture->directory, "tmpfs", flags, options) < 0) {
                if (errno == EPERM) {
                        print_message("mounting a tmpfs needs CAP_SYS_ADMIN\n");
                        skip();
                }
                fail_msg("mount: %s", strerror(errno));
        }
}

static void read_only_place_is_named(void **state)
{
        struct fixture *fixture = *state;
        mount_tmpfs(fixture, 0, NULL);
        store_close(open_store(fixture));
        int r = mount(NULL, fixture->directory, NULL, MS_REMOUNT | MS_RDONLY, NULL);
        assert_int_equal(r, 0);
        assert_refused(fixture, EROFS, "Read-only file system");
        assert_int_equal(umount(fixture->directory), 0);
}

static void full_disk_fails_one_transaction_and_heals(void **state)
{
        struct fixture *fixture = *state;
        mount_tmpfs(fixture, 0, "size=512k");
        struct store *store = open_store(fixture);
        assert_int_equal(store_put(store, "a", "1", 1, NULL), 0);
        auto_free char *big = xcalloc(1, 400 << 10);
        auto_free char *filler = xasprintf("%s/filler", fixture->directory);
        assert_int_equal(file_replace(AT_FDCWD, filler, big, 300 << 10, 0600, false, NULL), 0);
        assert_int_equal(store_put(store, "b", big, 400 << 10, &fixture->err), -ENOSPC);
        assert_non_null(strstr(err_text(&fixture->err), fixture->path));
        assert_int_equal(store_revision(store), 1);
        assert_int_equal(unlink(filler), 0);
        assert_int_equal(store_put(store, "b", big, 50 << 10, &fixture->err), 0);
        assert_int_equal(store_revision(store), 2);
        store_close(store);
        store = open_store(fixture);
        assert_int_equal(store_revision(store), 2);
        store_close(store);
        assert_int_equal(umount(fixture->directory), 0);
}

static void transactions_are_fast(void **state)
{
        struct fixture *fixture = *state;
        struct store *store = open_store(fixture);
        char value[2000];
        memset(value, 'v', sizeof(value));
        int64_t best_ns = INT64_MAX;
        for (int i = 0; i < 200; i++) {
                int64_t start_ns = clock_monotonic_ns();
                assert_int_equal(store_put(store, "k", value, sizeof(value), NULL), 0);
                int64_t took_ns = clock_monotonic_ns() - start_ns;
                if (took_ns < best_ns)
                        best_ns = took_ns;
        }
        print_message("# best transaction: %lld us\n", (long long)(best_ns / NS_PER_US));
        assert_true(best_ns < 2 * NS_PER_MS);
        store_close(store);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(state_survives_reopening),
                TEST(killed_writer_leaves_whole_transactions),
                TEST(second_process_is_kept_out),
                TEST(foreign_files_are_refused),
                TEST(damage_is_one_clear_error),
                TEST(reading_damage_later_is_an_error_too),
                TEST(unusable_places_are_named),
                TEST(read_only_place_is_named),
                TEST(full_disk_fails_one_transaction_and_heals),
                TEST(transactions_are_fast),
        };
        return cmocka_run_group_tests_name("sqlite", tests, NULL, NULL);
}
