/* A damaged or malicious database file: opening and reading it may fail, with a story,
 * and nothing else. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_LIMIT_BYTES (1u << 20)

static void use(struct store *store)
{
        struct store_value *values;
        struct store_value value;
        size_t length;
        struct err err = { 0 };
        if (store_list(store, "", &values, &length, NULL, &err) == 0)
                store_values_free(values, length);
        else if (err.code == 0)
                abort();
        if (store_get(store, "a", &value, NULL) == 0)
                store_value_finish(&value);
        store_put(store, "b", "x", 1, NULL);
        store_delete(store, "a", NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char directory[] = "/dev/shm/isle-fuzz-XXXXXX";
        char path[64];
        struct store *store;
        struct err err = { 0 };
        if (size > INPUT_LIMIT_BYTES)
                return 0;
        if (!mkdtemp(directory))
                abort();
        snprintf(path, sizeof(path), "%s/state.db", directory);
        if (file_replace(AT_FDCWD, path, data, size, 0600, false, NULL) < 0)
                abort();
        if (store_open_sqlite(path, &store, &err) == 0) {
                use(store);
                store_close(store);
        } else if (err.code == 0) {
                abort();
        }
        if (file_remove_tree(AT_FDCWD, directory, NULL) < 0)
                abort();
        return 0;
}
