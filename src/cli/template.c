#include "cli/template.h"

#include <errno.h>
#include <json-c/json_object.h>
#include <json-c/linkhash.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/template_tree.h"

#define VARIABLES_MAX 64

struct variable {
        const char *name;
        struct value value;
};

struct evaluation {
        struct template_pool pool;
        struct variable variables[VARIABLES_MAX]; /* [0] is "$" */
        size_t variables_length;
        template_method *method;
        struct buf *out;
        struct err *err;
        const struct node *node; /* being evaluated, for errors */
        unsigned steps;
        enum node_kind jump; /* NODE_BREAK or NODE_CONTINUE under way; NODE_TEXT: none */
};

static int fail(struct evaluation *e, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
static int fail(struct evaluation *e, const char *format, ...)
{
        va_list ap;
        char story[512];
        va_start(ap, format);
        vsnprintf(story, sizeof(story), format, ap);
        va_end(ap);
        return err_plain(e->err, EINVAL, "template: :%d:%d: %s", e->node ? e->node->line : 1,
                         e->node ? e->node->column : 0, story);
}

/* --- fields --- */

static struct json_object *find_field(struct json_object *object, const char *name, bool *ret_found)
{
        struct json_object *value = NULL;
        *ret_found = json_object_object_get_ex(object, name, &value);
        if (*ret_found)
                return value;
        json_object_object_foreach(object, key, other)
        {
                if (strcasecmp(key, name) == 0) {
                        *ret_found = true;
                        return other;
                }
        }
        return NULL;
}

/* A step into `from`: absence is not an error yet. */
static int step_field(struct evaluation *e, struct value from, const char *name, struct value *ret)
{
        if (from.missing || !from.json) {
                *ret = (struct value){ .missing = true };
                return 0;
        }
        if (!json_object_is_type(from.json, json_type_object))
                return fail(e, "executing \"\" at <.%s>: can't evaluate field %s in type %s", name,
                            name, value_type(from));
        bool found;
        struct json_object *value = find_field(from.json, name, &found);
        *ret = (struct value){ .json = value, .missing = !found };
        return 0;
}

static int step_fields(struct evaluation *e, struct value from, char *const *fields,
                       struct value *ret)
{
        for (; fields && *fields; fields++) {
                int r = step_field(e, from, *fields, &from);
                if (r < 0)
                        return r;
        }
        *ret = from;
        return 0;
}

/* --- operands, calls, pipelines --- */

static int eval_pipe(struct evaluation *e, const struct template_pipe *pipe, struct value dot,
                     struct value *ret);

static int find_variable(struct evaluation *e, const char *name, struct variable **ret)
{
        for (size_t i = e->variables_length; i-- > 0;) {
                if (streq(e->variables[i].name, name)) {
                        *ret = &e->variables[i];
                        return 0;
                }
        }
        return fail(e, "undefined variable \"%s\"", name);
}

static int eval_operand(struct evaluation *e, const struct operand *operand, struct value dot,
                        struct value *ret)
{
        struct variable *variable = NULL;
        struct value from = dot;
        int r = 0;
        switch (operand->kind) {
        case OPERAND_DOT:
        case OPERAND_FIELD:
                break;
        case OPERAND_VARIABLE:
                r = find_variable(e, operand->text, &variable);
                if (r == 0)
                        from = variable->value;
                break;
        case OPERAND_CONSTANT:
                from = (struct value){ .json = operand->constant };
                break;
        case OPERAND_FUNCTION:
                if (operand->function->least > 0)
                        return fail(e, "wrong number of args for %s: want %d got 0",
                                    operand->function->name, operand->function->least);
                r = operand->function->call(&e->pool, NULL, 0, &from, e->err);
                break;
        case OPERAND_PIPE:
                r = eval_pipe(e, operand->pipe, dot, &from);
                break;
        }
        return r < 0 ? r : step_fields(e, from, operand->fields, ret);
}

static int eval_function(struct evaluation *e, const struct template_function *function,
                         const struct value *arguments, size_t length, struct value *ret)
{
        if ((int)length < function->least || (function->most >= 0 && (int)length > function->most))
                return fail(e, "wrong number of args for %s: want %s%d got %zu", function->name,
                            function->most < 0 ? "at least " : "", function->least, length);
        struct err why = { 0 };
        int r = function->call(&e->pool, arguments, length, ret, &why);
        return r < 0 ? fail(e, "executing \"\" at <%s>: %s", function->name, err_text(&why)) : 0;
}

/* {{.Label "k"}}: the last field of the chain is the method. */
static int eval_method(struct evaluation *e, const struct operand *operand, struct value dot,
                       const struct value *arguments, size_t length, struct value *ret)
{
        size_t fields = strv_length(operand->fields);
        const char *name = fields ? operand->fields[fields - 1] : "";
        struct value self = dot;
        struct json_object *result = NULL;
        for (size_t i = 0; i + 1 < fields; i++) {
                int r = step_field(e, self, operand->fields[i], &self);
                if (r < 0)
                        return r;
        }
        if (operand->kind != OPERAND_FIELD || !e->method || length != 1 || self.missing ||
            !json_object_is_type(arguments[0].json, json_type_string) ||
            e->method(self.json, name, json_object_get_string(arguments[0].json), &result) < 0)
                return fail(e, "can't give argument to non-function %s", fields ? name : "value");
        *ret = pool_value(&e->pool, result);
        return 0;
}

static int eval_call(struct evaluation *e, const struct call *call, struct value dot,
                     const struct value *fed, struct value *ret)
{
        const struct operand *first = &call->operands[0];
        if (call->length == 1 && !fed)
                return eval_operand(e, first, dot, ret);
        struct value arguments[66];
        size_t length = 0;
        for (size_t i = 1; i < call->length; i++) {
                int r = eval_operand(e, &call->operands[i], dot, &arguments[length++]);
                if (r < 0)
                        return r;
        }
        if (fed)
                arguments[length++] = *fed;
        if (first->kind == OPERAND_FUNCTION)
                return eval_function(e, first->function, arguments, length, ret);
        return eval_method(e, first, dot, arguments, length, ret);
}

static int set_variable(struct evaluation *e, const char *name, bool declares, struct value value)
{
        struct variable *variable = NULL;
        if (!declares) {
                int r = find_variable(e, name, &variable);
                if (r == 0)
                        variable->value = value;
                return r;
        }
        if (e->variables_length >= VARIABLES_MAX)
                return fail(e, "too many variables");
        e->variables[e->variables_length++] = (struct variable){ name, value };
        return 0;
}

/* The value of the pipeline, without setting its variables. */
static int eval_calls(struct evaluation *e, const struct template_pipe *pipe, struct value dot,
                      struct value *ret)
{
        struct value value = { 0 };
        for (size_t i = 0; i < pipe->length; i++) {
                struct value fed = value;
                int r = eval_call(e, &pipe->calls[i], dot, i ? &fed : NULL, &value);
                if (r < 0)
                        return r;
        }
        *ret = value;
        return 0;
}

static int eval_pipe(struct evaluation *e, const struct template_pipe *pipe, struct value dot,
                     struct value *ret)
{
        struct value value;
        if (++e->steps > TEMPLATE_STEPS_MAX)
                return fail(e, "runs too long");
        int r = eval_calls(e, pipe, dot, &value);
        if (r == 0 && pipe->names[1])
                r = fail(e, "two variables outside range");
        if (r == 0 && pipe->names[0])
                r = set_variable(e, pipe->names[0], pipe->declares, value);
        if (r == 0)
                *ret = value;
        return r;
}

/* --- nodes --- */

static int eval_nodes(struct evaluation *e, const struct node *node, struct value dot);

/* The body with its own variables. */
static int eval_scope(struct evaluation *e, const struct node *node, struct value dot)
{
        size_t mark = e->variables_length;
        int r = eval_nodes(e, node, dot);
        e->variables_length = mark;
        return r;
}

static int range_turn(struct evaluation *e, const struct node *node, struct value index,
                      struct value element)
{
        const struct template_pipe *pipe = node->pipe;
        size_t mark = e->variables_length;
        int r = 0;
        if (++e->steps > TEMPLATE_STEPS_MAX)
                return fail(e, "runs too long");
        if (pipe->names[1]) {
                r = set_variable(e, pipe->names[0], pipe->declares, index);
                if (r == 0)
                        r = set_variable(e, pipe->names[1], pipe->declares, element);
        } else if (pipe->names[0]) {
                r = set_variable(e, pipe->names[0], pipe->declares, element);
        }
        if (r == 0)
                r = eval_nodes(e, node->body, element);
        e->variables_length = mark;
        bool leave = e->jump == NODE_BREAK;
        e->jump = NODE_TEXT;
        return r < 0 ? r : leave;
}

static int compare_keys(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

static int range_object(struct evaluation *e, const struct node *node, struct json_object *object)
{
        auto_strv keys = NULL;
        size_t length = 0;
        keys = xcalloc((size_t)json_object_object_length(object) + 1, sizeof(char *));
        json_object_object_foreach(object, key, ignored)
        {
                (void)ignored;
                keys[length++] = xstrdup(key);
        }
        qsort(keys, length, sizeof(char *), compare_keys);
        for (size_t i = 0; i < length; i++) {
                struct json_object *element = NULL;
                json_object_object_get_ex(object, keys[i], &element);
                struct value name = pool_string(&e->pool, keys[i], strlen(keys[i]));
                int r = range_turn(e, node, name, (struct value){ .json = element });
                if (r != 0)
                        return r;
        }
        return 0;
}

static int range_array(struct evaluation *e, const struct node *node, struct json_object *array)
{
        for (size_t i = 0; i < json_object_array_length(array); i++) {
                struct value index = pool_value(&e->pool, json_object_new_int64((int64_t)i));
                struct value element = { .json = json_object_array_get_idx(array, i) };
                int r = range_turn(e, node, index, element);
                if (r != 0)
                        return r;
        }
        return 0;
}

static int eval_range(struct evaluation *e, const struct node *node, struct value dot)
{
        struct value value;
        int r = eval_calls(e, node->pipe, dot, &value);
        if (r < 0)
                return r;
        if (!value_true(value) &&
            (value.missing || !value.json || json_object_is_type(value.json, json_type_array) ||
             json_object_is_type(value.json, json_type_object)))
                return eval_scope(e, node->otherwise, dot);
        if (json_object_is_type(value.json, json_type_object))
                r = range_object(e, node, value.json);
        else if (json_object_is_type(value.json, json_type_array))
                r = range_array(e, node, value.json);
        else
                r = fail(e, "range can't iterate over %s", value_type(value));
        return r < 0 ? r : 0;
}

static int eval_condition(struct evaluation *e, const struct node *node, struct value dot)
{
        struct value value;
        size_t mark = e->variables_length;
        int r = eval_pipe(e, node->pipe, dot, &value);
        if (r == 0 && value_true(value))
                r = eval_nodes(e, node->body, node->kind == NODE_WITH ? value : dot);
        else if (r == 0)
                r = eval_nodes(e, node->otherwise, dot);
        e->variables_length = mark;
        return r;
}

/* The name to blame for a value that is not there. */
static const char *missing_name(const struct template_pipe *pipe)
{
        const struct operand *operand = &pipe->calls[0].operands[0];
        size_t fields = strv_length(operand->fields);
        return fields ? operand->fields[fields - 1] : ".";
}

static int eval_print(struct evaluation *e, const struct node *node, struct value dot)
{
        struct value value;
        int r = eval_pipe(e, node->pipe, dot, &value);
        if (r < 0 || node->pipe->names[0])
                return r;
        if (value.missing) {
                const char *name = missing_name(node->pipe);
                return fail(e, "executing \"\" at <.%s>: map has no entry for key \"%s\"", name,
                            name);
        }
        template_print(e->out, value.json);
        return 0;
}

static int eval_nodes(struct evaluation *e, const struct node *node, struct value dot)
{
        int r = 0;
        for (; node && r == 0 && e->jump == NODE_TEXT; node = node->next) {
                e->node = node;
                switch (node->kind) {
                case NODE_TEXT:
                        buf_append(e->out, node->text, node->size);
                        break;
                case NODE_PRINT:
                        r = eval_print(e, node, dot);
                        break;
                case NODE_IF:
                case NODE_WITH:
                        r = eval_condition(e, node, dot);
                        break;
                case NODE_RANGE:
                        r = eval_range(e, node, dot);
                        break;
                case NODE_BREAK:
                case NODE_CONTINUE:
                        e->jump = node->kind;
                        break;
                }
        }
        return r;
}

int template_execute(const struct template *template, struct json_object *data,
                     template_method *method, struct buf *out, struct err *err)
{
        struct evaluation e = { .method = method, .out = out, .err = err };
        struct value dot = { .json = data };
        e.variables[e.variables_length++] = (struct variable){ "$", dot };
        int r = eval_nodes(&e, template->nodes, dot);
        for (size_t i = 0; i < e.pool.length; i++)
                json_object_put(e.pool.objects[i]);
        free(e.pool.objects);
        return r;
}
