/* The `filters` query argument of Docker's list, prune and event endpoints.
 *
 * On the wire it is a JSON object in one of two forms, both accepted:
 *
 *         {"label":{"tier=web":true},"status":{"running":true}}     since API 1.22
 *         {"label":["tier=web"],"status":["running"]}               before
 *
 * A key whose value is false in the first form is dropped. Several values of
 * one key mean "any of them", except for labels, where all must hold; several
 * keys mean "all of them".
 *
 * Pure: no I/O, input from strangers, bounds FILTERS_SIZE_MAX and JSON's own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define FILTERS_SIZE_MAX           65536
#define FILTERS_PATTERN_LENGTH_MAX 256

struct filter {
        char *key;
        char **values; /* NULL-terminated, at least one */
};

/* `struct filters f = {0};` holds none. */
struct filters {
        struct filter *items;
        size_t length;
};

/* `text` may be NULL or empty: no filters. On failure *ret is untouched. */
int filters_parse(const char *text, struct filters *ret, struct err *err);
void filters_finish(struct filters *filters);
#define auto_filters __attribute__((cleanup(filters_finish))) struct filters

/* Refuses keys outside the NULL-terminated list: "invalid filter 'colour'". */
int filters_check(const struct filters *filters, const char *const *allowed, struct err *err);

/* The values of a key, NULL where it is not used. */
char *const *filters_get(const struct filters *filters, const char *key);

/* True where the key is not used, or one of its values equals `value`. */
bool filters_match(const struct filters *filters, const char *key, const char *value);

/* As filters_match; a value is also a POSIX extended regular expression that may match
 * anywhere in `value` (docker's name and id filters: "name=^/?web"). Expressions that could
 * take long (repeat counts, back references, FILTERS_PATTERN_LENGTH_MAX) count as plain text. */
bool filters_match_pattern(const struct filters *filters, const char *key, const char *value);

/* `labels` is a JSON_MAP vector, NULL for none. Every value of `key`, "name" or
 * "name=value", must hold; and none of those of "label!" when `key` is "label". */
bool filters_match_labels(const struct filters *filters, const char *key, char *const *labels);

/* A boolean filter ("dangling", "all"): *ret is set where the key is used. -EINVAL for
 * a value that is not true, false, 1 or 0. */
int filters_bool(const struct filters *filters, const char *key, bool *ret, struct err *err);
