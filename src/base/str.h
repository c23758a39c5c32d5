/* Strings: small helpers on NUL-terminated bytes.
 *
 * Functions that return a `char *` return heap memory that the caller frees.
 * Exhaustion of memory aborts here (STYLE rule 11): use them for sizes that a
 * stranger cannot choose; cap first otherwise.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))

/* Heap, aborting on exhaustion; sizes are checked for overflow. */
void *xmalloc(size_t size_bytes) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t count, size_t size_bytes) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *old, size_t count, size_t size_bytes) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xstrndup(const char *s, size_t length) __attribute__((malloc, returns_nonnull));
void *xmemdup(const void *bytes, size_t size_bytes) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2), returns_nonnull));
char *xvasprintf(const char *format, va_list ap)
        __attribute__((format(printf, 1, 0), returns_nonnull));

#define new0(type) ((type *)xcalloc(1, sizeof(type)))

/* True for equal strings; NULL equals only NULL. */
static inline bool streq(const char *a, const char *b)
{
        return a == b || (a && b && strcmp(a, b) == 0);
}

static inline bool str_empty(const char *s)
{
        return !s || !*s;
}

/* What follows `prefix` in `s`, or NULL where `s` does not start with it. */
const char *str_after(const char *s, const char *prefix);
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);

/* Strict numbers: the whole string must be digits in range, no sign, no blank.
 * Return 0, -EINVAL or -ERANGE; *ret is untouched on failure. */
int str_to_u64(const char *s, uint64_t *ret);
int str_to_u32(const char *s, uint32_t *ret);
/* As above with an optional leading '-'. */
int str_to_i64(const char *s, int64_t *ret);

/* The value of a hexadecimal digit, -1 for another character. */
static inline int str_hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A size as docker takes it: digits, optional fraction, optional unit
 * b|k|kb|kib|m|…|p (powers of 1024, any case). */
int str_to_size(const char *s, uint64_t *ret_bytes);

/* Sets the bits that a list of numbers and ranges names, "0-3,7"; -EINVAL where it is no such
 * list or goes beyond `bits_max`. */
int str_to_bits(const char *text, unsigned long *bits, size_t bits_max);

/* NULL-terminated vectors of strings, each on the heap. */
void strv_free(char **v);
size_t strv_length(char *const *v);
char **strv_copy(char *const *v);
/* Appends a copy of `s`; *v may be NULL. */
void strv_push(char ***v, const char *s);
/* Appends `s` itself. */
void strv_push_take(char ***v, char *s);
/* Puts "NAME=value" in the place of the first entry of that name, for programs look at the
 * first, or at the end. */
void strv_set_variable(char ***env, const char *entry);
bool strv_contains(char *const *v, const char *s);
char *strv_join(char *const *v, const char *separator);
/* Pieces between separator characters; empty pieces are kept. */
char **str_split(const char *s, char separator);

static inline void auto_strv_cleanup(char ***v)
{
        strv_free(*v);
}
#define auto_strv __attribute__((cleanup(auto_strv_cleanup))) char **
