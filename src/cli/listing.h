/* Lists: the tables of `ps`, `images`, `volume ls` …, and what --format makes of
 * them.
 *
 *     (nothing), table      the command's own table
 *     table TEMPLATE        a table of these fields, with headings
 *     json                  one JSON object a row
 *     TEMPLATE              that, once for each row
 *
 * A row is a JSON object of the fields that templates may name, as text ready to
 * be shown, in alphabetical order.
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "cli/template.h"

struct json_object;

struct heading {
        const char *field, *text; /* "ID", "CONTAINER ID" */
};

struct listing {
        const struct heading *headings; /* ends with a NULL field */
        template_method *method;        /* NULL: none */
};

/* Appends the list of `rows` (an array). `format` may be NULL; `table` is the
 * command's own table ("{{.ID}}\t{{.Names}}"). */
int listing_render(const struct listing *listing, const char *format, const char *table,
                   struct json_object *rows, struct buf *out, struct err *err);
/* As above, on standard output. */
int listing_print(const struct listing *listing, const char *format, const char *table,
                  struct json_object *rows, struct err *err);

/* Whether a template can be parsed, to be asked before anything is done. */
int listing_check_format(const char *format, struct err *err);

/* Prints objects as `inspect` does: indented JSON, or `format` once for each. */
int listing_inspect(const char *format, struct json_object *objects, struct err *err);

/* Indented JSON on standard output: --json. */
void listing_json(struct json_object *value);

/* Adds a member to a row; NULL text is "". */
void row_add(struct json_object *row, const char *field, const char *text);

/* "abc…" of at most `length` characters; the text itself where it is short. Heap. */
char *text_ellipsis(const char *text, size_t length);
/* An identifier without "sha256:", cut to twelve digits unless `whole`. Heap. */
char *text_short_id(const char *id, bool whole);
/* "a=1,b=2": the members of an object of strings, sorted. Heap. */
char *text_join_map(struct json_object *map, const char *separator);

/* For option rows: KEY=VALUE. */
int listing_check_filter(const char *value, struct err *err);

/* Option rows that listing commands share. */
#define OPTION_FORMAT                                                                              \
        {                                                                                          \
                .name = "format", .kind = OPTION_TEXT, .word = "string",                           \
                .help = "How to print: 'table', 'table TEMPLATE', 'json', or a template in Go's "  \
                        "syntax, such as '{{.ID}}'"                                                \
        }
#define OPTION_INSPECT_FORMAT                                                                      \
        {                                                                                          \
                .name = "format", .letter = 'f', .kind = OPTION_TEXT,                              \
                .help = "How to print: 'json' or a template in Go's syntax, such as '{{.Id}}'"     \
        }
#define OPTION_FILTER(examples)                                                                    \
        {                                                                                          \
                .name = "filter", .letter = 'f', .kind = OPTION_LIST, .word = "filter",            \
                .check = listing_check_filter, .help = "Only what matches, e.g. " examples         \
        }
#define OPTION_JSON                                                                                \
        {                                                                                          \
                .name = "json", .kind = OPTION_BOOL,                                               \
                .help = "Print the daemon's own answer as indented JSON"                           \
        }
