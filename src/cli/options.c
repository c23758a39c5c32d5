#include "cli/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/duration.h"
#include "base/str.h"
#include "cli/units.h"

struct option_values {
        char **list; /* NULL-terminated, strings are argv's or literals */
        size_t length;
};

static int parse_bool(const char *text, bool *ret)
{
        static const char *const truths[] = { "1", "t", "T", "true", "TRUE", "True" };
        static const char *const lies[] = { "0", "f", "F", "false", "FALSE", "False" };
        for (size_t i = 0; i < ELEMENTS(truths); i++) {
                if (streq(text, truths[i]) || streq(text, lies[i])) {
                        *ret = streq(text, truths[i]);
                        return 0;
                }
        }
        return -EINVAL;
}

static int check_bool(const char *value, struct err *err)
{
        bool ignored;
        return parse_bool(value, &ignored) < 0 ? err_plain(err, EINVAL, "must be true or false")
                                               : 0;
}

static int check_int(const char *value, struct err *err)
{
        int64_t ignored;
        int r = str_to_i64(value, &ignored);
        if (r == -ERANGE)
                return err_plain(err, ERANGE, "value out of range");
        return r < 0 ? err_plain(err, EINVAL, "must be a whole number") : 0;
}

static int check_bytes(const char *value, struct err *err)
{
        int64_t ignored;
        return bytes_parse(value, &ignored, err);
}

static int check_duration(const char *value, struct err *err)
{
        int64_t ignored;
        return duration_parse(value, &ignored, err);
}

static int check_decimal(const char *value, struct err *err)
{
        char *end;
        errno = 0;
        double number = strtod(value, &end);
        /* strtod also takes "inf", "nan" and hexadecimal. */
        if (end == value || *end || errno || strspn(value, "+-.0123456789eE") != strlen(value))
                return err_plain(err, EINVAL, "failed to parse %s as a rational number", value);
        (void)number;
        return 0;
}

static const struct {
        const char *word;
        int (*check)(const char *value, struct err *err);
} kinds[] = {
        [OPTION_BOOL] = { NULL, check_bool },
        [OPTION_TEXT] = { "string", NULL },
        [OPTION_LIST] = { "list", NULL },
        [OPTION_INT] = { "int", check_int },
        [OPTION_BYTES] = { "bytes", check_bytes },
        [OPTION_DURATION] = { "duration", check_duration },
        [OPTION_DECIMAL] = { "decimal", check_decimal },
};
_Static_assert(ELEMENTS(kinds) == OPTION_KINDS, "a row per kind");

const char *option_word(const struct option *option)
{
        if (option->kind == OPTION_BOOL)
                return NULL;
        return option->word ? option->word : kinds[option->kind].word;
}

const struct option *option_find(const struct option *options, const char *name, size_t length)
{
        for (const struct option *row = options; row && row->name; row++)
                if (strlen(row->name) == length && memcmp(row->name, name, length) == 0)
                        return row;
        return NULL;
}

const struct option *option_find_letter(const struct option *options, char letter)
{
        for (const struct option *row = options; row && row->name; row++)
                if (row->letter == letter && letter)
                        return row;
        return NULL;
}

static void push(struct option_values *values, char *text)
{
        values->list = xrealloc(values->list, values->length + 2, sizeof(char *));
        values->list[values->length++] = text;
        values->list[values->length] = NULL;
}

static int set_value(struct args *args, const struct option *option, const char *value,
                     struct err *err)
{
        struct err why = { 0 };
        int r = 0;
        if (kinds[option->kind].check)
                r = kinds[option->kind].check(value, &why);
        if (r == 0 && option->check)
                r = option->check(value, &why);
        if (r < 0) {
                char letter[] = { '-', option->letter, ',', ' ', '\0' };
                return err_plain(err, EINVAL, "invalid argument \"%s\" for \"%s--%s\" flag: %s",
                                 value, option->letter ? letter : "", option->name, err_text(&why));
        }
        push(&args->values[option - args->options], (char *)value);
        return 0;
}

/* State of the walk along argv. */
struct walk {
        int argc, at;
        char **argv;
};

/* argv[at] is "--name" or "--name=value"; `at` is left on the last word used. */
static int parse_long(struct args *args, struct walk *walk, struct err *err)
{
        char *name = walk->argv[walk->at] + 2;
        size_t length = strcspn(name, "=");
        const struct option *option = option_find(args->options, name, length);
        if (!option && length == 4 && memcmp(name, "help", 4) == 0) {
                args->help = true;
                return 0;
        }
        if (length == 0)
                return err_plain(err, EINVAL, "bad flag syntax: --%s", name);
        if (!option)
                return err_plain(err, EINVAL, "unknown flag: --%.*s", (int)length, name);
        if (name[length] == '=')
                return set_value(args, option, name + length + 1, err);
        if (option->kind == OPTION_BOOL)
                return set_value(args, option, "true", err);
        if (walk->at + 1 >= walk->argc)
                return err_plain(err, EINVAL, "flag needs an argument: --%s", option->name);
        return set_value(args, option, walk->argv[++walk->at], err);
}

/* argv[at] is a cluster of letters: booleans, then at most one with a value. */
static int parse_letters(struct args *args, struct walk *walk, struct err *err)
{
        char *cluster = walk->argv[walk->at] + 1;
        for (char *at = cluster; *at; at++) {
                const struct option *option = option_find_letter(args->options, *at);
                if (!option && *at == 'h') {
                        args->help = true;
                        return 0;
                }
                if (!option)
                        return err_plain(err, EINVAL, "unknown shorthand flag: '%c' in -%s", *at,
                                         cluster);
                if (option->kind == OPTION_BOOL && at[1] != '=') {
                        int r = set_value(args, option, "true", err);
                        if (r < 0)
                                return r;
                        continue;
                }
                if (at[1])
                        return set_value(args, option, at + (at[1] == '=' ? 2 : 1), err);
                if (walk->at + 1 >= walk->argc)
                        return err_plain(err, EINVAL, "flag needs an argument: '%c' in -%s", *at,
                                         cluster);
                return set_value(args, option, walk->argv[++walk->at], err);
        }
        return 0;
}

static void push_rest(struct args *args, struct walk *walk)
{
        while (walk->at < walk->argc)
                args->rest[args->length++] = walk->argv[walk->at++];
}

static int walk_argv(struct args *args, bool stop_early, struct walk *walk, struct err *err)
{
        for (; walk->at < walk->argc && !args->help; walk->at++) {
                char *word = walk->argv[walk->at];
                int r = 0;
                if (streq(word, "--")) {
                        walk->at++;
                        push_rest(args, walk);
                } else if (word[0] != '-' || !word[1]) {
                        args->rest[args->length++] = word;
                        if (stop_early) {
                                walk->at++;
                                push_rest(args, walk);
                        }
                } else if (word[1] == '-') {
                        r = parse_long(args, walk, err);
                } else {
                        r = parse_letters(args, walk, err);
                }
                if (r < 0)
                        return r;
        }
        return 0;
}

int args_parse(const struct option *options, bool stop_early, int argc, char **argv,
               struct args *ret, struct err *err)
{
        static const struct option none[] = { { 0 } };
        size_t rows = 0;
        options = options ? options : none;
        while (options[rows].name)
                rows++;
        auto_args args = {
                .options = options,
                .values = xcalloc(rows, sizeof(struct option_values)),
                .rest = xcalloc((size_t)argc + 1, sizeof(char *)),
        };
        struct walk walk = { .argc = argc, .argv = argv };
        int r = walk_argv(&args, stop_early, &walk, err);
        if (r < 0)
                return r;
        *ret = args;
        args = (struct args){ 0 };
        return 0;
}

void args_finish(struct args *args)
{
        for (size_t i = 0; args->values && args->options[i].name; i++)
                free(args->values[i].list);
        free(args->values);
        free(args->rest);
        *args = (struct args){ 0 };
}

/* The row and its values; a name without a row is a bug in the command. */
static const struct option *row_of(const struct args *args, const char *name)
{
        const struct option *option = option_find(args->options, name, strlen(name));
        if (!option)
                abort();
        return option;
}

static const struct option_values *values_of(const struct args *args, const char *name)
{
        return &args->values[row_of(args, name) - args->options];
}

bool args_given(const struct args *args, const char *name)
{
        return values_of(args, name)->length > 0;
}

const char *args_text(const struct args *args, const char *name)
{
        const struct option_values *values = values_of(args, name);
        return values->length ? values->list[values->length - 1] : row_of(args, name)->initial;
}

bool args_bool(const struct args *args, const char *name)
{
        bool value = false;
        const char *text = args_text(args, name);
        if (text)
                parse_bool(text, &value);
        return value;
}

char *const *args_list(const struct args *args, const char *name)
{
        static char *const none[] = { NULL };
        const struct option_values *values = values_of(args, name);
        return values->length ? values->list : none;
}

int64_t args_int(const struct args *args, const char *name)
{
        int64_t value = 0;
        const char *text = args_text(args, name);
        if (text && row_of(args, name)->kind == OPTION_BYTES)
                bytes_parse(text, &value, NULL);
        else if (text)
                str_to_i64(text, &value);
        return value;
}

int64_t args_duration(const struct args *args, const char *name)
{
        int64_t value_ns = 0;
        const char *text = args_text(args, name);
        if (text)
                duration_parse(text, &value_ns, NULL);
        return value_ns;
}

double args_decimal(const struct args *args, const char *name)
{
        const char *text = args_text(args, name);
        return text ? strtod(text, NULL) : 0;
}
