/* Templates inside: the parsed form, shared by template_parse.c (which builds it),
 * template.c (which walks it) and template_functions.c (which it calls).
 *
 * A template is a list of nodes; a node may hold a pipeline; a pipeline is calls
 * that feed each other; a call is operands, the first of which may be a function.
 * Everything below a node belongs to it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "cli/template.h"

struct json_object;

/* --- values --- */

/* A JSON value during evaluation; owned by the evaluation or the data. */
struct value {
        struct json_object *json;
        bool missing; /* a field that is not there; json is NULL then */
};

/* Memory of one evaluation: new objects live until its end. */
struct template_pool {
        struct json_object **objects;
        size_t length, capacity;
};

/* Hands a new reference over to the pool and makes a value of it. */
struct value pool_value(struct template_pool *pool, struct json_object *taken);
struct value pool_string(struct template_pool *pool, const char *text, size_t size);

bool value_true(struct value value);
/* "string", "int", "map" … for errors */
const char *value_type(struct value value);

/* --- functions --- */

struct template_function {
        const char *name;
        int least, most; /* arguments; most < 0: any number */
        int (*call)(struct template_pool *pool, const struct value *arguments, size_t length,
                    struct value *ret, struct err *err);
};

const struct template_function *template_function_find(const char *name, size_t length);

/* --- tree --- */

enum operand_kind {
        OPERAND_DOT,      /* . */
        OPERAND_FIELD,    /* .A.B: fields */
        OPERAND_VARIABLE, /* $x.A: text, fields */
        OPERAND_CONSTANT, /* constant */
        OPERAND_FUNCTION, /* function */
        OPERAND_PIPE,     /* (…).A: pipe, fields */
};

struct template_pipe;

struct operand {
        enum operand_kind kind;
        char *text;
        char **fields;
        struct json_object *constant; /* NULL is nil */
        const struct template_function *function;
        struct template_pipe *pipe;
};

struct call {
        struct operand *operands;
        size_t length;
};

struct template_pipe {
        char *names[2]; /* variables that are set; in `range` index and element */
        bool declares;  /* := rather than = */
        struct call *calls;
        size_t length;
};

enum node_kind {
        NODE_TEXT,
        NODE_PRINT,
        NODE_IF,
        NODE_RANGE,
        NODE_WITH,
        NODE_BREAK,
        NODE_CONTINUE,
};

struct node {
        enum node_kind kind;
        int line, column; /* of the action; the column from 0 */
        char *text;       /* NODE_TEXT */
        size_t size;
        struct template_pipe *pipe;
        struct node *body, *otherwise; /* first of a list */
        struct node *next;
};

struct template
{
        struct node *nodes;
};
