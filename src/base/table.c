#include "base/table.h"

#include <stdlib.h>
#include <string.h>

#include "base/rand.h"
#include "base/str.h"

#define TABLE_FIRST_CAPACITY 16

uint64_t hash_bytes(const void *bytes, size_t size, uint64_t seed)
{
        const unsigned char *at = bytes;
        uint64_t hash = 0xcbf29ce484222325ULL ^ seed;
        for (size_t i = 0; i < size; i++)
                hash = (hash ^ at[i]) * 0x100000001b3ULL;
        hash ^= hash >> 32;
        hash *= 0x9e3779b97f4a7c15ULL;
        return hash ^ (hash >> 29);
}

static uint64_t hash_key(const char *key)
{
        static uint64_t seed;
        if (!seed)
                seed = rand_u64() | 1;
        return hash_bytes(key, strlen(key), seed);
}

/* The slot that holds `key`, or the free slot where it would go. */
static size_t find_slot(const struct table *table, const char *key, uint64_t hash)
{
        size_t mask = table->capacity - 1, slot = hash & mask;
        while (table->entries[slot].key &&
               (table->entries[slot].hash != hash || strcmp(table->entries[slot].key, key) != 0))
                slot = (slot + 1) & mask;
        return slot;
}

static void grow(struct table *table)
{
        struct table larger = {
                .capacity = table->capacity ? table->capacity * 2 : TABLE_FIRST_CAPACITY,
                .length = table->length,
        };
        larger.entries = xcalloc(larger.capacity, sizeof(*larger.entries));
        for (size_t i = 0; i < table->capacity; i++) {
                const struct table_entry *entry = &table->entries[i];
                if (entry->key)
                        larger.entries[find_slot(&larger, entry->key, entry->hash)] = *entry;
        }
        free(table->entries);
        *table = larger;
}

void table_finish(struct table *table)
{
        for (size_t i = 0; i < table->capacity; i++)
                free(table->entries[i].key);
        free(table->entries);
        *table = (struct table){ 0 };
}

void *table_get(const struct table *table, const char *key)
{
        if (table->length == 0)
                return NULL;
        const struct table_entry *entry = &table->entries[find_slot(table, key, hash_key(key))];
        return entry->key ? entry->value : NULL;
}

void *table_put(struct table *table, const char *key, void *value)
{
        if ((table->length + 1) * 4 > table->capacity * 3)
                grow(table);
        uint64_t hash = hash_key(key);
        struct table_entry *entry = &table->entries[find_slot(table, key, hash)];
        void *old = entry->key ? entry->value : NULL;
        if (!entry->key) {
                entry->key = xstrdup(key);
                entry->hash = hash;
                table->length++;
        }
        entry->value = value;
        return old;
}

void *table_remove(struct table *table, const char *key)
{
        if (table->length == 0)
                return NULL;
        size_t mask = table->capacity - 1;
        size_t hole = find_slot(table, key, hash_key(key));
        struct table_entry *entries = table->entries;
        if (!entries[hole].key)
                return NULL;
        void *value = entries[hole].value;
        free(entries[hole].key);
        table->length--;

        /* Close the gap: pull back each follower whose home lies at or before it. */
        for (size_t at = (hole + 1) & mask; entries[at].key; at = (at + 1) & mask) {
                size_t home = entries[at].hash & mask;
                if (((at - home) & mask) >= ((at - hole) & mask)) {
                        entries[hole] = entries[at];
                        hole = at;
                }
        }
        entries[hole] = (struct table_entry){ 0 };
        return value;
}

const struct table_entry *table_next(const struct table *table, size_t *cursor)
{
        while (*cursor < table->capacity) {
                const struct table_entry *entry = &table->entries[(*cursor)++];
                if (entry->key)
                        return entry;
        }
        return NULL;
}
