/* Output templates: the part of Go's text/template that `--format` is used with.
 *
 *     {{.Names}}  {{.State.Status}}  {{json .}}  {{index .Labels "k"}}
 *     {{if .A}}…{{else if .B}}…{{else}}…{{end}}   {{with .A}}…{{end}}
 *     {{range $i, $e := .List}}…{{else}}…{{end}}  {{break}} {{continue}}
 *     {{$x := .A}} {{$x}}  {{- trim -}}  {{.A | upper}}  and comments
 *
 * Functions: and or not eq ne lt le gt ge index slice len print printf println
 * json join split lower upper title pad truncate. Not here: define, template,
 * block, call, html, js, urlquery.
 *
 * The data is JSON. A field is looked up by its exact name, then without regard
 * to case, since Go's names and JSON's differ that way ("ID", "Id"). A field that
 * is absent is false in conditions and an error where it would be printed: so a
 * misspelled name is reported, while {{if .State.Health}} works for containers
 * that have none. Values print as Go prints them: [a b], map[k:v], <nil>.
 *
 * Bounds: nesting TEMPLATE_DEPTH_MAX; TEMPLATE_STEPS_MAX evaluated nodes.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#define TEMPLATE_DEPTH_MAX 64
#define TEMPLATE_STEPS_MAX 10000000

struct json_object;
struct template;

/* Errors read "template: :LINE: …", those of execution "template: :LINE:COLUMN: …",
 * as Go's. */
int template_parse(const char *text, struct template **ret, struct err *err);
void template_destroy(struct template *template);

/* A field with an argument, as {{.Label "k"}}: returns a new reference in *ret, or
 * -ENOENT where `self` has no such method. */
typedef int template_method(struct json_object *self, const char *name, const char *argument,
                            struct json_object **ret);

/* Appends the output. `method` may be NULL. On failure what was produced before
 * stays in `out`. */
int template_execute(const struct template *template, struct json_object *data,
                     template_method *method, struct buf *out, struct err *err);

/* Appends a value as {{.}} prints it. */
void template_print(struct buf *out, struct json_object *value);
