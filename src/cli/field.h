/* Reading what the daemon answered: values of a JSON object by dotted path, with
 * a harmless default where a part is absent or of another type. Results are
 * borrowed from the object. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct json_object;

struct json_object *field_get(struct json_object *object, const char *path);
const char *field_text(struct json_object *object, const char *path); /* or "" */
int64_t field_int(struct json_object *object, const char *path);      /* or 0 */
double field_double(struct json_object *object, const char *path);    /* or 0 */
bool field_bool(struct json_object *object, const char *path);        /* or false */
/* Elements of an array, 0 for anything else. */
size_t field_length(struct json_object *object, const char *path);

/* Building requests: sets a value at a dotted path, making objects on the way.
 * Takes the value's reference. */
void field_set(struct json_object *object, const char *path, struct json_object *taken);
void field_set_text(struct json_object *object, const char *path, const char *text);
/* Appends to the array there, which is made at need. */
void field_add(struct json_object *object, const char *path, struct json_object *taken);

/* Appends JSON indented by four blanks, as docker's inspect prints it. */
void field_pretty(struct buf *out, struct json_object *value);
