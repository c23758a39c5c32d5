/* A hash table from strings to pointers (open addressing, linear probing).
 *
 * `struct table t = {0};` is an empty one. Keys are copied; values belong to
 * whoever put them there. Iteration order is unspecified. Not thread-safe. The
 * hash is keyed per process, so a stranger cannot choose colliding names.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct table_entry {
        char *key; /* NULL: free slot */
        void *value;
        uint64_t hash;
};

struct table {
        struct table_entry *entries;
        size_t capacity; /* power of two, or 0 */
        size_t length;   /* keys held */
};

void table_finish(struct table *table);
void *table_get(const struct table *table, const char *key);
/* Sets key to value (not NULL) and returns the value it replaces, or NULL. */
void *table_put(struct table *table, const char *key, void *value);
/* Removes the key and returns its value, or NULL. */
void *table_remove(struct table *table, const char *key);

/* Walks the entries: start with *cursor = 0; returns NULL at the end. The
 * table must not change meanwhile. */
const struct table_entry *table_next(const struct table *table, size_t *cursor);

/* FNV-1a with a final mix; `seed` makes it unpredictable. */
uint64_t hash_bytes(const void *bytes, size_t size, uint64_t seed);
