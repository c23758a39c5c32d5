/* The bytes are a program of transactions, run on both providers: they must agree on
 * every result, and on all that is left. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/str.h"
#include "store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OPS_LIMIT 200

static void check(bool condition)
{
        if (!condition)
                abort();
}

static void compare(struct store *a, struct store *b, const char *prefix)
{
        struct store_value *left, *right;
        size_t left_length, right_length;
        check(store_list(a, prefix, &left, &left_length, NULL, NULL) == 0);
        check(store_list(b, prefix, &right, &right_length, NULL, NULL) == 0);
        check(left_length == right_length);
        for (size_t i = 0; i < left_length; i++) {
                check(streq(left[i].key, right[i].key) && left[i].size == right[i].size);
                check(memcmp(left[i].data, right[i].data, left[i].size) == 0);
                check(left[i].mod_revision == right[i].mod_revision);
                check(left[i].create_revision == right[i].create_revision);
        }
        store_values_free(left, left_length);
        store_values_free(right, right_length);
        check(store_revision(a) == store_revision(b));
}

/* One transaction of up to three operations and a guard, from seven bytes and a value. */
static void transact(struct store *a, struct store *b, const uint8_t *bytes)
{
        char keys[4][4];
        struct store_op ops[3];
        size_t length = bytes[0] % 4;
        for (size_t i = 0; i < 4; i++)
                snprintf(keys[i], sizeof(keys[i]), "%c%c", 'a' + bytes[1 + i] % 3,
                         0x21 + bytes[1 + i] % 0x5e);
        for (size_t i = 0; i < length; i++)
                ops[i] = (struct store_op){ .kind = bytes[5] >> i & 1 ? STORE_PUT : STORE_DELETE,
                                            .key = keys[i],
                                            .data = bytes,
                                            .size = bytes[6] % 8 };
        const struct store_guard guard = { keys[3], bytes[6] % 16 };
        size_t guards = bytes[0] >> 7;
        uint64_t left = 0, right = 0;
        int r = store_txn(a, &guard, guards, ops, length, &left, NULL);
        check(store_txn(b, &guard, guards, ops, length, &right, NULL) == r);
        check(left == right);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char directory[] = "/dev/shm/isle-fuzz-XXXXXX";
        char path[64];
        struct store *dummy, *sqlite;
        if (size > 7 * OPS_LIMIT)
                return 0;
        check(mkdtemp(directory) != NULL);
        snprintf(path, sizeof(path), "%s/state.db", directory);
        check(store_open_dummy(&dummy) == 0 && store_open_sqlite(path, &sqlite, NULL) == 0);
        for (size_t at = 0; at + 7 <= size; at += 7)
                transact(dummy, sqlite, data + at);
        compare(dummy, sqlite, "");
        compare(dummy, sqlite, "b");
        store_close(sqlite);
        check(store_open_sqlite(path, &sqlite, NULL) == 0);
        compare(dummy, sqlite, "");
        store_close(sqlite);
        store_close(dummy);
        check(file_remove_tree(AT_FDCWD, directory, NULL) == 0);
        return 0;
}
