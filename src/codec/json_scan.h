/* The part of JSON's grammar that json-c is lax about, checked before it reads:
 * valid UTF-8 (no overlong forms, no surrogates), no raw control characters, no
 * U+0000 however written (a C string would end there), no NaN, Infinity,
 * comments or single quotes, numbers as RFC 8259 spells them. What is left,
 * the nesting, is json-c's.
 */
#pragma once

#include <stddef.h>

/* NULL when there is nothing to object to; else what is wrong, and *ret_where.
 * *size is reduced by the blanks at the end. */
const char *json_scan(const char *text, size_t *size, size_t *ret_where);
