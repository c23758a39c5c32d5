/* What holds for every provider: each test runs on both. */
#include "base/tests/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "loop/loop.h"
#include "store/store.h"

struct fixture {
        char directory[64];
        char path[96];
        struct store *store;
        struct err err;
};

static int setup(void **state)
{
        bool is_sqlite = *state != NULL; /* the test's initial state */
        struct fixture *fixture = new0(struct fixture);
        strcpy(fixture->directory, "/tmp/isle-store-XXXXXX");
        if (!mkdtemp(fixture->directory))
                return -1;
        snprintf(fixture->path, sizeof(fixture->path), "%s/state.db", fixture->directory);
        *state = fixture;
        return is_sqlite ? store_open_sqlite(fixture->path, &fixture->store, &fixture->err)
                         : store_open_dummy(&fixture->store);
}

static int teardown(void **state)
{
        struct fixture *fixture = *state;
        store_close(fixture->store);
        int r = file_remove_tree(AT_FDCWD, fixture->directory, NULL);
        free(fixture);
        return r;
}

static void put(struct fixture *fixture, const char *key, const char *text)
{
        if (store_put(fixture->store, key, text, strlen(text), &fixture->err) < 0)
                fail_msg("%s", err_text(&fixture->err));
}

/* "key=data@create/mod …" */
static char *dump(struct fixture *fixture, const char *prefix)
{
        struct store_value *values;
        size_t length;
        struct buf out = { 0 };
        assert_int_equal(store_list(fixture->store, prefix, &values, &length, NULL, &fixture->err),
                         0);
        for (size_t i = 0; i < length; i++)
                buf_printf(&out, "%s%s=%s@%d/%d", i > 0 ? " " : "", values[i].key, values[i].data,
                           (int)values[i].create_revision, (int)values[i].mod_revision);
        store_values_free(values, length);
        return buf_take(&out);
}

static void assert_dump(struct fixture *fixture, const char *prefix, const char *wanted)
{
        auto_free char *text = dump(fixture, prefix);
        assert_string_equal(text, wanted);
}

static void keys_carry_their_revisions(void **state)
{
        struct fixture *fixture = *state;
        struct store_value value;
        assert_int_equal(store_revision(fixture->store), 0);
        assert_int_equal(store_get(fixture->store, "a", &value, &fixture->err), -ENOENT);
        put(fixture, "a", "1");
        put(fixture, "b", "2");
        put(fixture, "a", "3");
        assert_int_equal(store_get(fixture->store, "a", &value, &fixture->err), 0);
        assert_string_equal(value.data, "3");
        assert_int_equal(value.size, 1);
        assert_int_equal(value.create_revision, 1);
        assert_int_equal(value.mod_revision, 3);
        store_value_finish(&value);
        assert_int_equal(store_delete(fixture->store, "a", &fixture->err), 0);
        assert_int_equal(store_revision(fixture->store), 4);
        assert_int_equal(store_get(fixture->store, "a", &value, &fixture->err), -ENOENT);
        put(fixture, "a", "");
        assert_dump(fixture, "", "a=@5/5 b=2@2/2");
}

static void deleting_nothing_changes_nothing(void **state)
{
        struct fixture *fixture = *state;
        put(fixture, "a", "1");
        assert_int_equal(store_delete(fixture->store, "b", &fixture->err), 0);
        assert_int_equal(store_revision(fixture->store), 1);
}

static void lists_are_by_prefix_and_ordered(void **state)
{
        struct fixture *fixture = *state;
        static const char *const keys[] = { "i/b", "i/a", "i/~", "i", "j/a", "i/a/x", "I/a", "i0" };
        for (size_t i = 0; i < ELEMENTS(keys); i++)
                put(fixture, keys[i], "");
        assert_dump(fixture, "i/", "i/a=@2/2 i/a/x=@6/6 i/b=@1/1 i/~=@3/3");
        assert_dump(fixture, "i/a", "i/a=@2/2 i/a/x=@6/6");
        assert_dump(fixture, "none", "");
        struct store_value *values = (void *)1;
        size_t length;
        uint64_t revision;
        assert_int_equal(store_list(fixture->store, "none", &values, &length, &revision, NULL), 0);
        assert_null(values);
        assert_int_equal(length, 0);
        assert_int_equal(revision, ELEMENTS(keys));
}

static void values_are_bytes(void **state)
{
        struct fixture *fixture = *state;
        static const char data[] = "a\0b\xff";
        struct store_value value;
        assert_int_equal(store_put(fixture->store, "k", data, sizeof(data), &fixture->err), 0);
        assert_int_equal(store_get(fixture->store, "k", &value, &fixture->err), 0);
        assert_int_equal(value.size, sizeof(data));
        assert_memory_equal(value.data, data, sizeof(data));
        store_value_finish(&value);
}

static void transactions_are_all_or_nothing(void **state)
{
        struct fixture *fixture = *state;
        uint64_t revision = 99;
        put(fixture, "a", "1");
        put(fixture, "b", "2");
        const struct store_op ops[] = {
                { .kind = STORE_PUT, .key = "a", .data = "x", .size = 1 },
                { .kind = STORE_DELETE, .key = "b" },
                { .kind = STORE_PUT, .key = "c", .data = "y", .size = 1 },
        };
        struct store_guard guards[] = { { "a", 1 }, { "b", 1 } };
        assert_int_equal(store_txn(fixture->store, guards, 2, ops, 3, &revision, &fixture->err),
                         -EAGAIN);
        assert_non_null(strstr(err_text(&fixture->err), "b was changed meanwhile"));
        assert_int_equal(revision, 99);
        assert_dump(fixture, "", "a=1@1/1 b=2@2/2");

        guards[1] = (struct store_guard){ "b", 2 };
        assert_int_equal(store_txn(fixture->store, guards, 2, ops, 3, &revision, &fixture->err), 0);
        assert_int_equal(revision, 3);
        assert_dump(fixture, "", "a=x@1/3 c=y@3/3");

        guards[0] = (struct store_guard){ "a", 0 };
        assert_int_equal(store_txn(fixture->store, guards, 1, ops, 1, NULL, &fixture->err),
                         -EAGAIN);
        assert_non_null(strstr(err_text(&fixture->err), "a exists already"));
        guards[0] = (struct store_guard){ "b", 2 };
        assert_int_equal(store_txn(fixture->store, guards, 1, ops, 1, NULL, &fixture->err),
                         -EAGAIN);
        assert_non_null(strstr(err_text(&fixture->err), "b was deleted meanwhile"));
        guards[0] = (struct store_guard){ "b", 0 };
        assert_int_equal(store_txn(fixture->store, guards, 1, ops, 1, &revision, &fixture->err), 0);
        assert_int_equal(revision, 4);
        /* Guards alone are a check. */
        assert_int_equal(store_txn(fixture->store, guards, 1, NULL, 0, &revision, NULL), 0);
        assert_int_equal(revision, 4);
}

static void limits_are_kept(void **state)
{
        struct fixture *fixture = *state;
        char key[STORE_KEY_LIMIT_BYTES + 2];
        memset(key, 'k', sizeof(key));
        key[STORE_KEY_LIMIT_BYTES + 1] = '\0';
        assert_int_equal(store_put(fixture->store, key, "", 0, &fixture->err), -EINVAL);
        key[STORE_KEY_LIMIT_BYTES] = '\0';
        put(fixture, key, "fits");
        static const char *const bad[] = { "", "a b", "a\n", "\xc3\xa9", "a\x7f" };
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_int_equal(store_put(fixture->store, bad[i], "", 0, &fixture->err), -EINVAL);

        auto_free char *data = xcalloc(1, STORE_VALUE_LIMIT_BYTES + 1);
        assert_int_equal(store_put(fixture->store, "big", data, STORE_VALUE_LIMIT_BYTES + 1, NULL),
                         -E2BIG);
        assert_int_equal(store_put(fixture->store, "big", data, STORE_VALUE_LIMIT_BYTES, NULL), 0);

        struct store_op ops[STORE_OPS_LIMIT + 1] = { 0 };
        char keys[ELEMENTS(ops)][8];
        for (size_t i = 0; i < ELEMENTS(ops); i++) {
                snprintf(keys[i], sizeof(keys[i]), "o%zu", i);
                ops[i] = (struct store_op){ .kind = STORE_PUT, .key = keys[i] };
        }
        assert_int_equal(store_txn(fixture->store, NULL, 0, ops, ELEMENTS(ops), NULL, NULL),
                         -E2BIG);
        assert_int_equal(store_txn(fixture->store, NULL, 0, ops, STORE_OPS_LIMIT, NULL, NULL), 0);
        ops[1].key = ops[0].key;
        assert_int_equal(store_txn(fixture->store, NULL, 0, ops, 2, NULL, NULL), -EINVAL);
}

/* --- watches --- */

struct seen {
        struct buf text;
        struct store_watch *watch;
        int calls, cancel_after;
};

static void see(void *arg, const struct store_event *event)
{
        struct seen *seen = arg;
        seen->calls++;
        if (!event)
                buf_puts(&seen->text, "lost ");
        else if (event->kind == STORE_PUT)
                buf_printf(&seen->text, "%d:%s=%.*s ", (int)event->revision, event->key,
                           (int)event->size, event->data);
        else
                buf_printf(&seen->text, "%d:-%s ", (int)event->revision, event->key);
        if (seen->calls == seen->cancel_after)
                store_watch_cancel(take_ptr(seen->watch));
}

static void watch(struct fixture *fixture, struct loop *loop, const char *prefix, uint64_t from,
                  struct seen *seen)
{
        if (store_watch(fixture->store, loop, prefix, from, see, seen, &seen->watch,
                        &fixture->err) < 0)
                fail_msg("%s", err_text(&fixture->err));
}

static void unwatch(struct seen *seen)
{
        store_watch_cancel(seen->watch);
        buf_finish(&seen->text);
}

static void watches_see_changes_in_order(void **state)
{
        struct fixture *fixture = *state;
        struct seen all = { 0 }, some = { 0 }, past = { 0 }, future = { 0 };
        put(fixture, "a/1", "x");
        watch(fixture, NULL, "", 0, &all);
        watch(fixture, NULL, "a/", 0, &some);
        watch(fixture, NULL, "", 1, &past);
        watch(fixture, NULL, "", 4, &future);
        put(fixture, "a/2", "y");
        put(fixture, "b", "z");
        store_delete(fixture->store, "a/1", NULL);
        const struct store_op ops[] = {
                { .kind = STORE_DELETE, .key = "none" },
                { .kind = STORE_PUT, .key = "b" },
                { .kind = STORE_DELETE, .key = "a/2" },
        };
        assert_int_equal(store_txn(fixture->store, NULL, 0, ops, 3, NULL, NULL), 0);
        assert_int_equal(store_watch_poll(all.watch), 5);
        store_watch_poll(some.watch);
        store_watch_poll(past.watch);
        store_watch_poll(future.watch);
        assert_string_equal(all.text.data, "2:a/2=y 3:b=z 4:-a/1 5:b= 5:-a/2 ");
        assert_string_equal(some.text.data, "2:a/2=y 4:-a/1 5:-a/2 ");
        assert_string_equal(past.text.data, "1:a/1=x 2:a/2=y 3:b=z 4:-a/1 5:b= 5:-a/2 ");
        assert_string_equal(future.text.data, "4:-a/1 5:b= 5:-a/2 ");
        assert_int_equal(store_watch_poll(all.watch), 0);
        unwatch(&all);
        unwatch(&some);
        unwatch(&past);
        unwatch(&future);
}

static void list_and_watch_leave_no_gap(void **state)
{
        struct fixture *fixture = *state;
        struct seen seen = { 0 };
        struct store_value *values;
        size_t length;
        uint64_t revision;
        put(fixture, "a", "1");
        assert_int_equal(store_list(fixture->store, "", &values, &length, &revision, NULL), 0);
        store_values_free(values, length);
        put(fixture, "a", "2");
        watch(fixture, NULL, "", revision + 1, &seen);
        put(fixture, "a", "3");
        store_watch_poll(seen.watch);
        assert_string_equal(seen.text.data, "2:a=2 3:a=3 ");
        unwatch(&seen);
}

static void history_is_bounded_and_says_so(void **state)
{
        struct fixture *fixture = *state;
        struct seen seen = { 0 };
        struct store_watch *unused;
        for (unsigned i = 0; i < STORE_HISTORY_LENGTH + 10; i++)
                put(fixture, "a", "");
        assert_int_equal(
                store_watch(fixture->store, NULL, "", 10, see, &seen, &unused, &fixture->err),
                -ESTALE);
        assert_non_null(strstr(err_text(&fixture->err), "first known is 11"));
        watch(fixture, NULL, "", 11, &seen);
        while (store_watch_poll(seen.watch) > 0)
                ;
        assert_int_equal(seen.calls, STORE_HISTORY_LENGTH);
        unwatch(&seen);

        /* By size as well. */
        auto_free char *data = xcalloc(1, STORE_HISTORY_BYTES / 4);
        for (int i = 0; i < 8; i++)
                assert_int_equal(
                        store_put(fixture->store, "b", data, STORE_HISTORY_BYTES / 4, NULL), 0);
        assert_int_equal(store_watch(fixture->store, NULL, "", store_revision(fixture->store) - 4,
                                     see, &seen, &unused, NULL),
                         -ESTALE);
}

static void watcher_that_falls_behind_is_told(void **state)
{
        struct fixture *fixture = *state;
        struct seen seen = { 0 };
        watch(fixture, NULL, "", 0, &seen);
        for (unsigned i = 0; i < STORE_HISTORY_LENGTH + 1; i++)
                put(fixture, "a", "");
        put(fixture, "b", "");
        assert_int_equal(store_watch_poll(seen.watch), 1);
        assert_string_equal(seen.text.data, "lost ");
        assert_int_equal(store_watch_poll(seen.watch), 0);
        unwatch(&seen);
}

static void watch_on_a_loop_is_called_there(void **state)
{
        struct fixture *fixture = *state;
        struct seen seen = { .cancel_after = 1000 };
        struct loop *loop;
        assert_int_equal(loop_create(&loop, NULL), 0);
        watch(fixture, loop, "a", 0, &seen);
        for (int i = 0; i < 999; i++)
                put(fixture, "a", "");
        assert_int_equal(seen.calls, 0);
        while (loop_step(loop, 0))
                ;
        assert_int_equal(seen.calls, 999);
        put(fixture, "a", "");
        put(fixture, "a", ""); /* never seen: the callback cancels before */
        while (loop_step(loop, 0))
                ;
        assert_int_equal(seen.calls, 1000);
        assert_null(seen.watch);
        buf_finish(&seen.text);
        loop_destroy(loop);
}

/* --- leases --- */

static uint64_t grant(struct fixture *fixture, int64_t ttl_ns)
{
        uint64_t lease;
        assert_int_equal(store_lease_grant(fixture->store, ttl_ns, &lease, &fixture->err), 0);
        return lease;
}

static int put_leased(struct fixture *fixture, const char *key, uint64_t lease)
{
        const struct store_op op = { .kind = STORE_PUT, .key = key, .lease = lease };
        return store_txn(fixture->store, NULL, 0, &op, 1, NULL, &fixture->err);
}

static void wait_until_expired(struct fixture *fixture)
{
        int64_t deadline_ns = clock_monotonic_ns() + 10 * NS_PER_S;
        int64_t left_ns;
        while ((left_ns = store_lease_expire(fixture->store)) >= 0 &&
               clock_monotonic_ns() < deadline_ns)
                nanosleep(&(struct timespec){ .tv_nsec = left_ns % NS_PER_S + 1 }, NULL);
        assert_int_equal(left_ns, -1);
}

static void keys_go_with_their_lease(void **state)
{
        struct fixture *fixture = *state;
        struct seen seen = { 0 };
        uint64_t lease = grant(fixture, 30 * NS_PER_MS);
        assert_int_equal(put_leased(fixture, "l/1", lease), 0);
        assert_int_equal(put_leased(fixture, "l/2", lease), 0);
        assert_int_equal(put_leased(fixture, "l/3", lease), 0);
        put(fixture, "l/3", "stays"); /* a put without lease takes it off */
        put(fixture, "other", "stays");
        watch(fixture, NULL, "", 0, &seen);
        wait_until_expired(fixture);
        store_watch_poll(seen.watch);
        assert_string_equal(seen.text.data, "6:-l/1 6:-l/2 ");
        assert_dump(fixture, "", "l/3=stays@3/4 other=stays@5/5");
        assert_int_equal(store_lease_keep(fixture->store, lease, &fixture->err), -ENOENT);
        assert_int_equal(put_leased(fixture, "late", lease), -ENOENT);
        unwatch(&seen);
}

static void kept_lease_lives(void **state)
{
        struct fixture *fixture = *state;
        uint64_t lease = grant(fixture, 60 * NS_PER_MS);
        assert_int_equal(put_leased(fixture, "k", lease), 0);
        int64_t start_ns = clock_monotonic_ns();
        int kept = 0;
        while (clock_monotonic_ns() - start_ns < 150 * NS_PER_MS) {
                /* On a loaded machine we may come too late: that is no fault of the lease. */
                if (store_lease_keep(fixture->store, lease, NULL) < 0)
                        break;
                kept++;
                nanosleep(&(struct timespec){ .tv_nsec = 5 * NS_PER_MS }, NULL);
        }
        assert_true(kept > 0);
        if (store_lease_keep(fixture->store, lease, NULL) == 0)
                assert_dump(fixture, "", "k=@1/1");
        assert_true(store_lease_revoke(fixture->store, lease, NULL) <= 0);
        assert_dump(fixture, "", "");
        assert_int_equal(store_lease_expire(fixture->store), -1);
}

static void lease_of_many_keys_ends_whole(void **state)
{
        struct fixture *fixture = *state;
        uint64_t lease = grant(fixture, 3600 * NS_PER_S);
        for (unsigned i = 0; i < STORE_OPS_LIMIT * 2 + 5; i++) {
                char key[16];
                snprintf(key, sizeof(key), "k%u", i);
                assert_int_equal(put_leased(fixture, key, lease), 0);
        }
        assert_int_equal(store_lease_revoke(fixture->store, lease, NULL), 0);
        assert_dump(fixture, "", "");
        assert_int_equal(store_lease_revoke(fixture->store, lease, NULL), -ENOENT);
        assert_int_equal(store_lease_grant(fixture->store, 0, &lease, NULL), -EINVAL);
}

/* --- threads --- */

#define WRITERS    4
#define INCREMENTS 200

static void *increment(void *arg)
{
        struct store *store = arg;
        for (int i = 0; i < INCREMENTS;) {
                struct store_value value = { 0 };
                int count = store_get(store, "n", &value, NULL) == 0 ? atoi(value.data) : 0;
                char text[16];
                int size = snprintf(text, sizeof(text), "%d", count + 1);
                const struct store_guard guard = { "n", value.mod_revision };
                const struct store_op op = {
                        .kind = STORE_PUT, .key = "n", .data = text, .size = (size_t)size
                };
                if (store_txn(store, &guard, 1, &op, 1, NULL, NULL) == 0)
                        i++;
                store_value_finish(&value);
        }
        return NULL;
}

static void concurrent_increments_are_all_counted(void **state)
{
        struct fixture *fixture = *state;
        struct seen seen = { .cancel_after = WRITERS * INCREMENTS };
        struct loop *loop;
        assert_int_equal(loop_create(&loop, NULL), 0);
        watch(fixture, loop, "n", 1, &seen);
        pthread_t threads[WRITERS];
        for (int i = 0; i < WRITERS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, increment, fixture->store), 0);
        int64_t deadline_ns = clock_monotonic_ns() + 60 * NS_PER_S;
        while (seen.watch && clock_monotonic_ns() < deadline_ns)
                loop_step(loop, 100 * NS_PER_MS);
        for (int i = 0; i < WRITERS; i++)
                pthread_join(threads[i], NULL);
        assert_int_equal(seen.calls, WRITERS * INCREMENTS);
        /* In order, none twice: the last one's revision is the count. */
        auto_free char *last = xasprintf(" %d:n=%d ", WRITERS * INCREMENTS, WRITERS * INCREMENTS);
        assert_true(str_ends(seen.text.data, last));
        buf_finish(&seen.text);
        loop_destroy(loop);
}

#define TEST(function)                                                                             \
        {                                                                                          \
#function, function, setup, teardown, NULL                                         \
        }

int main(void)
{
        static const struct CMUnitTest suite[] = {
                TEST(keys_carry_their_revisions),
                TEST(deleting_nothing_changes_nothing),
                TEST(lists_are_by_prefix_and_ordered),
                TEST(values_are_bytes),
                TEST(transactions_are_all_or_nothing),
                TEST(limits_are_kept),
                TEST(watches_see_changes_in_order),
                TEST(list_and_watch_leave_no_gap),
                TEST(history_is_bounded_and_says_so),
                TEST(watcher_that_falls_behind_is_told),
                TEST(watch_on_a_loop_is_called_there),
                TEST(keys_go_with_their_lease),
                TEST(kept_lease_lives),
                TEST(lease_of_many_keys_ends_whole),
                TEST(concurrent_increments_are_all_counted),
        };
        struct CMUnitTest tests[2 * ELEMENTS(suite)];
        char names[ELEMENTS(tests)][80];
        for (size_t i = 0; i < ELEMENTS(tests); i++) {
                bool is_sqlite = i >= ELEMENTS(suite);
                tests[i] = suite[i % ELEMENTS(suite)];
                tests[i].initial_state = is_sqlite ? (void *)1 : NULL;
                snprintf(names[i], sizeof(names[i]), "%s_%s", is_sqlite ? "sqlite" : "dummy",
                         tests[i].name);
                tests[i].name = names[i];
        }
        return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
