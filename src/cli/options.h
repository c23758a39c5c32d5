/* Command-line options, from tables.
 *
 * The grammar is the one docker's users have in their fingers:
 *
 *     --name value   --name=value   -n value   -nvalue   -n=value   -itd
 *     --rm=false     --             (the rest are arguments)
 *
 * A command's options are one static table; parsing, --help, completion and the
 * manual page derive from it. Values are looked up by the option's long name
 * (args_text(args, "workdir")); a name that is not in the table is a programming
 * error and aborts. Each kind checks its values while parsing, so that a command
 * sees only well-formed ones.
 *
 * `struct args` borrows from argv and from the table; both must outlive it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum option_kind {
        OPTION_BOOL,     /* present, or =true / =false */
        OPTION_TEXT,     /* the last one counts */
        OPTION_LIST,     /* may be repeated */
        OPTION_INT,      /* int64_t */
        OPTION_BYTES,    /* size with an optional unit; see units.h */
        OPTION_DURATION, /* "1m30s"; see units.h */
        OPTION_DECIMAL,  /* "1.5" */
        OPTION_KINDS,    /* how many there are */
};

/* What a shell should offer for a value or an argument. */
enum completion {
        COMPLETE_NOTHING,
        COMPLETE_FILE,
        COMPLETE_DIRECTORY,
        COMPLETE_CONTAINER, /* any state */
        COMPLETE_RUNNING,   /* running containers */
        COMPLETE_IMAGE,
        COMPLETE_VOLUME,
        COMPLETE_WORDS, /* option.words */
};

#define OPTION_HIDDEN 1 /* accepted, not shown */

/* A table ends with a row whose name is NULL. */
struct option {
        const char *name;
        char letter; /* 0: none */
        enum option_kind kind;
        const char *help;
        const char *initial; /* value when not given; NULL is "", 0 or false */
        const char *word;    /* how the help calls the value; NULL: after the kind */
        /* A further check of a value; NULL: none. The text alone is the reason. */
        int (*check)(const char *value, struct err *err);
        enum completion completion;
        const char *words; /* blank-separated, for COMPLETE_WORDS */
        unsigned flags;
};

struct args {
        const struct option *options;
        struct option_values *values; /* one per row of the table */
        char **rest;                  /* arguments, NULL-terminated; strings are argv's */
        size_t length;
        bool help; /* --help was given; nothing else is certain then */
};

/* Parses argv (without the program's and command's names). With `stop_early`
 * the first argument ends the options: what follows belongs to the container. */
int args_parse(const struct option *options, bool stop_early, int argc, char **argv,
               struct args *ret, struct err *err);
void args_finish(struct args *args);
#define auto_args __attribute__((cleanup(args_finish))) struct args

bool args_given(const struct args *args, const char *name);
bool args_bool(const struct args *args, const char *name);
/* The value or the initial one; NULL where there is neither. */
const char *args_text(const struct args *args, const char *name);
/* The values in order, NULL-terminated; never NULL itself. */
char *const *args_list(const struct args *args, const char *name);
int64_t args_int(const struct args *args, const char *name);      /* INT, BYTES */
int64_t args_duration(const struct args *args, const char *name); /* nanoseconds */
double args_decimal(const struct args *args, const char *name);

/* Finds a row by long name or letter; NULL where there is none. */
const struct option *option_find(const struct option *options, const char *name, size_t length);
const struct option *option_find_letter(const struct option *options, char letter);
/* "list", "bytes" …: how help calls the value; NULL for booleans. */
const char *option_word(const struct option *option);
