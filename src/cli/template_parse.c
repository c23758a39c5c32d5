#include <errno.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/template_tree.h"

/* Theory of operation.
 *
 * The text is a run of literal pieces and {{actions}}. The reader keeps one
 * position; parse_nodes() collects nodes until the text ends or an action says
 * `end` or `else`, which it leaves as the stop word for the caller that opened
 * the block. Inside an action everything is separated by blanks, but a field
 * chain is one word: `$x.Name` or `(index . 0).Name`.
 */

struct reader {
        const char *start, *at;
        const char *end;   /* of what the current action says */
        const char *close; /* its "}}" */
        int depth;
        int loops;    /* enclosing ranges */
        bool trim;    /* the last action asked to trim what follows */
        bool stop_if; /* the stop word was "else if": an if follows in this action */
        struct err *err;
};

/* What ended a list of nodes. */
enum stop { STOP_TEXT_END, STOP_END, STOP_ELSE };

static int line_of(const struct reader *reader)
{
        int line = 1;
        for (const char *at = reader->start; at < reader->at; at++)
                line += *at == '\n';
        return line;
}

static int column_of(const struct reader *reader)
{
        const char *start = reader->at;
        while (start > reader->start && start[-1] != '\n')
                start--;
        return (int)(reader->at - start);
}

static int fail(struct reader *reader, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
static int fail(struct reader *reader, const char *format, ...)
{
        va_list ap;
        char story[256];
        va_start(ap, format);
        vsnprintf(story, sizeof(story), format, ap);
        va_end(ap);
        return err_plain(reader->err, EINVAL, "template: :%d: %s", line_of(reader), story);
}

static void pipe_free(struct template_pipe *pipe)
{
        if (!pipe)
                return;
        for (size_t i = 0; i < pipe->length; i++) {
                for (size_t j = 0; j < pipe->calls[i].length; j++) {
                        struct operand *operand = &pipe->calls[i].operands[j];
                        free(operand->text);
                        strv_free(operand->fields);
                        json_object_put(operand->constant);
                        pipe_free(operand->pipe);
                }
                free(pipe->calls[i].operands);
        }
        free(pipe->calls);
        free(pipe->names[0]);
        free(pipe->names[1]);
        free(pipe);
}
DEFINE_CLEANUP(pipe_cleanup, struct template_pipe *, pipe_free)

static void nodes_free(struct node *node)
{
        while (node) {
                struct node *next = node->next;
                free(node->text);
                pipe_free(node->pipe);
                nodes_free(node->body);
                nodes_free(node->otherwise);
                free(node);
                node = next;
        }
}
DEFINE_CLEANUP(nodes_cleanup, struct node *, nodes_free)

static bool is_name(char c)
{
        return c == '_' || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
               (c >= 'a' && c <= 'z') || (unsigned char)c >= 0x80;
}

static bool is_blank(char c)
{
        return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_blanks(struct reader *reader)
{
        while (reader->at < reader->end && is_blank(*reader->at))
                reader->at++;
}

static size_t name_length(const struct reader *reader, const char *at)
{
        size_t length = 0;
        while (at + length < reader->end && is_name(at[length]))
                length++;
        return length;
}

/* ".A.B" at the position; none is fine. */
static void take_fields(struct reader *reader, char ***fields)
{
        while (reader->at < reader->end && *reader->at == '.') {
                size_t length = name_length(reader, reader->at + 1);
                if (length == 0)
                        return;
                strv_push_take(fields, xstrndup(reader->at + 1, length));
                reader->at += 1 + length;
        }
}

static int escape_value(char c)
{
        static const char from[] = "abfnrtv\\\"'", to[] = "\a\b\f\n\r\t\v\\\"'";
        const char *found = c ? strchr(from, c) : NULL;
        return found ? to[found - from] : -1;
}

static int take_string(struct reader *reader, struct operand *ret)
{
        char quote = *reader->at++;
        auto_buf text = { 0 };
        for (; reader->at < reader->end && *reader->at != quote; reader->at++) {
                char c = *reader->at;
                if (c == '\n' && quote != '`')
                        return fail(reader, "unterminated quoted string");
                if (c == '\\' && quote != '`') {
                        int escaped = reader->at + 1 < reader->end ? escape_value(*++reader->at)
                                                                   : -1;
                        if (escaped < 0)
                                return fail(reader, "unknown escape in string");
                        c = (char)escaped;
                }
                buf_putc(&text, c);
        }
        if (reader->at >= reader->end)
                return fail(reader, "unterminated quoted string");
        reader->at++;
        ret->kind = OPERAND_CONSTANT;
        ret->constant = json_object_new_string_len(buf_text(&text), (int)text.size);
        return 0;
}

static int take_number(struct reader *reader, struct operand *ret)
{
        char digits[64], *end;
        size_t length = 0;
        const char *at = reader->at;
        while (at + length < reader->end && (is_name(at[length]) || strchr("+-.", at[length])))
                length++;
        if (length >= sizeof(digits))
                return fail(reader, "number too long");
        memcpy(digits, at, length);
        digits[length] = '\0';
        errno = 0;
        long long whole = strtoll(digits, &end, 0);
        if (!*end && !errno) {
                ret->constant = json_object_new_int64(whole);
        } else {
                double number = strtod(digits, &end);
                if (*end)
                        return fail(reader, "bad number syntax: \"%s\"", digits);
                ret->constant = json_object_new_double(number);
        }
        ret->kind = OPERAND_CONSTANT;
        reader->at += length;
        return 0;
}

static int take_word(struct reader *reader, struct operand *ret)
{
        size_t length = name_length(reader, reader->at);
        const char *word = reader->at;
        ret->kind = OPERAND_CONSTANT;
        reader->at += length;
        if (length == 4 && memcmp(word, "true", 4) == 0) {
                ret->constant = json_object_new_boolean(true);
                return 0;
        }
        if (length == 5 && memcmp(word, "false", 5) == 0) {
                ret->constant = json_object_new_boolean(false);
                return 0;
        }
        if (length == 3 && memcmp(word, "nil", 3) == 0)
                return 0;
        ret->kind = OPERAND_FUNCTION;
        ret->function = template_function_find(word, length);
        if (!ret->function)
                return fail(reader, "function \"%.*s\" not defined", (int)length, word);
        return 0;
}

static int take_pipe(struct reader *reader, struct template_pipe **ret);

static int take_parenthesis(struct reader *reader, struct operand *ret)
{
        reader->at++;
        ret->kind = OPERAND_PIPE;
        int r = take_pipe(reader, &ret->pipe);
        if (r < 0)
                return r;
        if (reader->at >= reader->end || *reader->at != ')')
                return fail(reader, "unclosed left paren");
        reader->at++;
        take_fields(reader, &ret->fields);
        return 0;
}

static int take_operand(struct reader *reader, struct operand *ret)
{
        char c = *reader->at;
        if (c == '(')
                return take_parenthesis(reader, ret);
        if (c == '"' || c == '`')
                return take_string(reader, ret);
        if ((c >= '0' && c <= '9') || c == '-' || c == '+')
                return take_number(reader, ret);
        if (c == '.') {
                take_fields(reader, &ret->fields);
                ret->kind = ret->fields ? OPERAND_FIELD : OPERAND_DOT;
                reader->at += ret->fields ? 0 : 1;
                return 0;
        }
        if (c == '$') {
                size_t length = name_length(reader, reader->at + 1);
                ret->kind = OPERAND_VARIABLE;
                ret->text = xstrndup(reader->at, length + 1);
                reader->at += length + 1;
                take_fields(reader, &ret->fields);
                return 0;
        }
        if (is_name(c))
                return take_word(reader, ret);
        return fail(reader, "unexpected \"%c\" in operand", c);
}

/* Operands up to "|", ")" or the end of the action. */
static int take_call(struct reader *reader, struct call *call)
{
        for (;;) {
                skip_blanks(reader);
                if (reader->at >= reader->end || *reader->at == '|' || *reader->at == ')')
                        break;
                if (call->length >= 64)
                        return fail(reader, "too many arguments");
                call->operands = xrealloc(call->operands, call->length + 1,
                                          sizeof(*call->operands));
                struct operand *operand = &call->operands[call->length++];
                *operand = (struct operand){ 0 };
                int r = take_operand(reader, operand);
                if (r < 0)
                        return r;
                char next = reader->at < reader->end ? *reader->at : ' ';
                if (!is_blank(next) && next != '|' && next != ')')
                        return fail(reader, "unexpected \"%c\" in operand", next);
        }
        return call->length ? 0 : fail(reader, "missing value for command");
}

/* "$a, $b :=", "$a :=" or "$a =" at the position; leaves it alone otherwise. */
static void take_declaration(struct reader *reader, struct template_pipe *pipe)
{
        const char *back = reader->at;
        char *names[2] = { NULL, NULL };
        for (int i = 0; i < 2; i++) {
                skip_blanks(reader);
                if (reader->at >= reader->end || *reader->at != '$')
                        break;
                size_t length = name_length(reader, reader->at + 1);
                names[i] = xstrndup(reader->at, length + 1);
                reader->at += length + 1;
                skip_blanks(reader);
                if (reader->at >= reader->end || *reader->at != ',')
                        break;
                reader->at++;
        }
        bool declares = reader->at + 1 < reader->end && memcmp(reader->at, ":=", 2) == 0;
        bool assigns = !declares && reader->at < reader->end && *reader->at == '=';
        if (!names[0] || (!declares && !assigns)) {
                free(names[0]);
                free(names[1]);
                reader->at = back;
                return;
        }
        reader->at += declares ? 2 : 1;
        pipe->names[0] = names[0];
        pipe->names[1] = names[1];
        pipe->declares = declares;
}

static int take_pipe(struct reader *reader, struct template_pipe **ret)
{
        if (++reader->depth > TEMPLATE_DEPTH_MAX)
                return fail(reader, "nested too deeply");
        CLEANUP(pipe_cleanup) struct template_pipe *pipe = new0(struct template_pipe);
        skip_blanks(reader);
        take_declaration(reader, pipe);
        do {
                if (pipe->length)
                        reader->at++; /* the "|" */
                pipe->calls = xrealloc(pipe->calls, pipe->length + 1, sizeof(*pipe->calls));
                struct call *call = &pipe->calls[pipe->length++];
                *call = (struct call){ 0 };
                int r = take_call(reader, call);
                if (r < 0)
                        return r;
        } while (reader->at < reader->end && *reader->at == '|');
        reader->depth--;
        *ret = take_ptr(pipe);
        return 0;
}

/* The pipeline that fills the rest of the action. */
static int take_whole_pipe(struct reader *reader, struct template_pipe **ret)
{
        int r = take_pipe(reader, ret);
        if (r == 0 && reader->at < reader->end)
                r = fail(reader, "unexpected right paren");
        return r;
}

/* Ends the action: past its "}}" and, where asked for, the blanks behind. */
static void leave_action(struct reader *reader)
{
        reader->at = reader->close + 2;
        if (reader->trim)
                reader->at += strspn(reader->at, " \t\r\n");
}

/* Where the "}}" of the action at the position is, strings skipped. */
static const char *action_end(const char *at)
{
        char quote = 0;
        for (; *at; at++) {
                if (quote) {
                        if (*at == '\\' && quote != '`' && at[1])
                                at++;
                        else if (*at == quote)
                                quote = 0;
                } else if (*at == '"' || *at == '`') {
                        quote = *at;
                } else if (at[0] == '}' && at[1] == '}') {
                        return at;
                }
        }
        return NULL;
}

/* At "{{": finds the action's bounds. Returns 1 for a comment, which is skipped. */
static int enter_action(struct reader *reader)
{
        const char *open = reader->at;
        reader->at += 2;
        if (reader->at[0] == '-' && is_blank(reader->at[1]))
                reader->at += 2;
        const char *body = reader->at + strspn(reader->at, " \t\r\n");
        bool comment = body[0] == '/' && body[1] == '*';
        const char *close = comment ? strstr(body, "*/") : NULL;
        const char *end = comment ? (close ? strstr(close, "}}") : NULL) : action_end(body);
        if (!end) {
                reader->at = open;
                return fail(reader, comment ? "unclosed comment" : "unclosed action");
        }
        reader->trim = end - body >= 2 && end[-1] == '-' && is_blank(end[-2]);
        reader->close = end;
        reader->end = reader->trim ? end - 1 : end;
        while (reader->end > body && is_blank(reader->end[-1]))
                reader->end--;
        reader->at = body;
        if (!comment)
                return 0;
        leave_action(reader);
        return 1;
}

/* Takes a word such as "end" where the action starts with it. */
static bool take_keyword(struct reader *reader, const char *word)
{
        size_t length = strlen(word);
        if (name_length(reader, reader->at) != length || memcmp(reader->at, word, length) != 0)
                return false;
        reader->at += length;
        skip_blanks(reader);
        return true;
}

static int parse_nodes(struct reader *reader, struct node **ret, enum stop *ret_stop);

/* After `if`, `range` or `with`: pipeline, body, and what stands behind `else`. */
static int parse_block(struct reader *reader, struct node *node)
{
        enum stop stop;
        int r = take_whole_pipe(reader, &node->pipe);
        if (r < 0)
                return r;
        leave_action(reader);
        if (++reader->depth > TEMPLATE_DEPTH_MAX)
                return fail(reader, "nested too deeply");
        reader->loops += node->kind == NODE_RANGE;
        r = parse_nodes(reader, &node->body, &stop);
        reader->loops -= node->kind == NODE_RANGE;
        if (r == 0 && stop == STOP_ELSE && reader->stop_if) {
                node->otherwise = new0(struct node);
                node->otherwise->kind = NODE_IF;
                node->otherwise->line = line_of(reader);
                r = parse_block(reader, node->otherwise);
                stop = STOP_END;
        } else if (r == 0 && stop == STOP_ELSE) {
                r = parse_nodes(reader, &node->otherwise, &stop);
                if (r == 0 && stop == STOP_ELSE)
                        r = fail(reader, "unexpected {{else}}");
        }
        if (r == 0 && stop == STOP_TEXT_END)
                r = fail(reader, "unexpected EOF");
        reader->depth--;
        return r;
}

/* An action that makes a node. */
static int parse_node(struct reader *reader, struct node *node)
{
        static const struct {
                const char *word;
                enum node_kind kind;
        } blocks[] = { { "if", NODE_IF }, { "range", NODE_RANGE }, { "with", NODE_WITH } };
        node->line = line_of(reader);
        node->column = column_of(reader);
        for (size_t i = 0; i < ELEMENTS(blocks); i++) {
                if (take_keyword(reader, blocks[i].word)) {
                        node->kind = blocks[i].kind;
                        return parse_block(reader, node);
                }
        }
        bool leaves = take_keyword(reader, "break");
        if (leaves || take_keyword(reader, "continue")) {
                node->kind = leaves ? NODE_BREAK : NODE_CONTINUE;
                if (reader->loops == 0)
                        return fail(reader, "{{%s}} outside {{range}}",
                                    leaves ? "break" : "continue");
                if (reader->at < reader->end)
                        return fail(reader, "unexpected text in {{%s}}",
                                    leaves ? "break" : "continue");
        } else {
                node->kind = NODE_PRINT;
                int r = take_whole_pipe(reader, &node->pipe);
                if (r < 0)
                        return r;
        }
        leave_action(reader);
        return 0;
}

/* At an action: is it `end` or `else`? */
static int parse_stop(struct reader *reader, enum stop *ret)
{
        reader->stop_if = false;
        if (take_keyword(reader, "end")) {
                *ret = STOP_END;
        } else if (take_keyword(reader, "else")) {
                *ret = STOP_ELSE;
                reader->stop_if = take_keyword(reader, "if");
                if (reader->stop_if)
                        return 1;
        } else {
                return 0;
        }
        if (reader->at < reader->end)
                return fail(reader, "unexpected text in {{%s}}", *ret == STOP_END ? "end" : "else");
        leave_action(reader);
        return 1;
}

static void take_text(struct reader *reader, struct node ***tail)
{
        const char *open = strstr(reader->at, "{{");
        size_t size = open ? (size_t)(open - reader->at) : strlen(reader->at);
        const char *text = reader->at;
        reader->at += size;
        if (open && open[2] == '-' && is_blank(open[3]))
                while (size && is_blank(text[size - 1]))
                        size--;
        if (size == 0)
                return;
        struct node *node = new0(struct node);
        node->kind = NODE_TEXT;
        node->text = xstrndup(text, size);
        node->size = size;
        **tail = node;
        *tail = &node->next;
}

static int parse_nodes(struct reader *reader, struct node **ret, enum stop *ret_stop)
{
        CLEANUP(nodes_cleanup) struct node *first = NULL;
        struct node **tail = &first;
        enum stop stop = STOP_TEXT_END;
        for (;;) {
                take_text(reader, &tail);
                if (!*reader->at)
                        break;
                int r = enter_action(reader);
                if (r == 1)
                        continue;
                if (r == 0)
                        r = parse_stop(reader, &stop);
                if (r < 0)
                        return r;
                if (r == 1)
                        break;
                struct node *node = new0(struct node);
                *tail = node;
                tail = &node->next;
                r = parse_node(reader, node);
                if (r < 0)
                        return r;
        }
        *ret = take_ptr(first);
        *ret_stop = stop;
        return 0;
}

int template_parse(const char *text, struct template **ret, struct err *err)
{
        struct reader reader = { .start = text, .at = text, .err = err };
        CLEANUP(nodes_cleanup) struct node *nodes = NULL;
        enum stop stop;
        int r = parse_nodes(&reader, &nodes, &stop);
        if (r == 0 && stop != STOP_TEXT_END)
                r = fail(&reader, "unexpected {{%s}}", stop == STOP_END ? "end" : "else");
        if (r < 0)
                return r;
        struct template *template = new0(struct template);
        template->nodes = take_ptr(nodes);
        *ret = template;
        return 0;
}

void template_destroy(struct template *template)
{
        if (!template)
                return;
        nodes_free(template->nodes);
        free(template);
}
