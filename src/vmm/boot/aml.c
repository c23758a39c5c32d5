#include "vmm/boot/aml.h"

#include <stdlib.h>
#include <string.h>

#define OP_NAME    0x08
#define OP_SCOPE   0x10
#define OP_BUFFER  0x11
#define OP_PACKAGE 0x12
#define OP_METHOD  0x14
#define OP_RETURN  0xa4
#define OP_EXT     0x5b
#define OP_DEVICE  0x82
#define OP_STRING  0x0d

static void put(struct aml *a, uint64_t value, unsigned size)
{
        buf_append(&a->bytes, &value, size);
}

static void open_package(struct aml *a)
{
        if (a->depth == sizeof(a->open) / sizeof(a->open[0]))
                abort(); /* our own DSDT is nested too deep */
        a->open[a->depth++] = a->bytes.size;
        put(a, 0, 4);
}

void aml_close(struct aml *a)
{
        size_t at = a->open[--a->depth], length = a->bytes.size - at;
        uint8_t *p = (uint8_t *)a->bytes.data + at;
        p[0] = (uint8_t)(0xc0 | (length & 15));
        p[1] = (uint8_t)(length >> 4);
        p[2] = (uint8_t)(length >> 12);
        p[3] = (uint8_t)(length >> 20);
}

void aml_scope(struct aml *a, const char *name)
{
        put(a, OP_SCOPE, 1);
        open_package(a);
        buf_puts(&a->bytes, name);
}

void aml_device(struct aml *a, const char *name)
{
        put(a, OP_EXT | OP_DEVICE << 8, 2);
        open_package(a);
        buf_puts(&a->bytes, name);
}

void aml_method(struct aml *a, const char *name, unsigned arguments)
{
        put(a, OP_METHOD, 1);
        open_package(a);
        buf_puts(&a->bytes, name);
        put(a, arguments, 1);
}

void aml_integer(struct aml *a, uint64_t value)
{
        if (value <= 1)
                put(a, value, 1);
        else if (value <= 0xff)
                put(a, 0x0a | value << 8, 2);
        else if (value <= 0xffff)
                put(a, 0x0b | value << 8, 3);
        else if (value <= 0xffffffff)
                put(a, 0x0c | value << 8, 5);
        else {
                put(a, 0x0e, 1);
                put(a, value, 8);
        }
}

static void name(struct aml *a, const char *text)
{
        put(a, OP_NAME, 1);
        buf_puts(&a->bytes, text);
}

void aml_name_integer(struct aml *a, const char *text, uint64_t value)
{
        name(a, text);
        aml_integer(a, value);
}

void aml_name_string(struct aml *a, const char *text, const char *value)
{
        name(a, text);
        put(a, OP_STRING, 1);
        buf_append(&a->bytes, value, strlen(value) + 1);
}

void aml_name_eisa(struct aml *a, const char *text, const char *id)
{
        uint32_t v = (uint32_t)(id[0] - 0x40) << 26 | (uint32_t)(id[1] - 0x40) << 21 |
                     (uint32_t)(id[2] - 0x40) << 16 | (uint32_t)strtoul(id + 3, NULL, 16);
        name(a, text);
        put(a, 0x0c, 1);
        put(a, __builtin_bswap32(v), 4);
}

void aml_package(struct aml *a, unsigned length)
{
        put(a, OP_PACKAGE, 1);
        open_package(a);
        put(a, length, 1);
}

void aml_name_package(struct aml *a, const char *text, unsigned length)
{
        name(a, text);
        aml_package(a, length);
}

void aml_return_zero(struct aml *a)
{
        put(a, OP_RETURN, 2);
}

void aml_resources(struct aml *a)
{
        name(a, "_CRS");
        put(a, OP_BUFFER, 1);
        open_package(a);
        put(a, 0x0b, 1);
        put(a, 0, 2); /* bytes that follow, known at the end */
}

void aml_resource_io(struct aml *a, uint16_t base, uint8_t length)
{
        put(a, 0x0147, 2);
        put(a, base, 2);
        put(a, base, 2);
        put(a, 1 | length << 8, 2);
}

void aml_resource_irq(struct aml *a, uint32_t gsi, bool level)
{
        put(a, 0x89 | 6 << 8, 3);
        put(a, level ? 0x01 : 0x03, 1);
        put(a, 1, 1);
        put(a, gsi, 4);
}

void aml_resource_memory(struct aml *a, uint32_t base, uint32_t size)
{
        put(a, 0x86 | 9 << 8, 3);
        put(a, 1, 1);
        put(a, base, 4);
        put(a, size, 4);
}

static void word_window(struct aml *a, unsigned type, unsigned flags, uint16_t first, uint16_t last)
{
        put(a, 0x88 | 13 << 8, 3);
        put(a, type | 0x0c << 8 | flags << 16, 3);
        put(a, 0, 2);
        put(a, first, 2);
        put(a, last, 2);
        put(a, 0, 2);
        put(a, last - first + 1u, 2);
}

void aml_resource_bus(struct aml *a, uint16_t first, uint16_t last)
{
        word_window(a, 2, 0, first, last);
}

void aml_resource_window_io(struct aml *a, uint16_t first, uint16_t last)
{
        word_window(a, 1, 3, first, last);
}

void aml_resource_window_memory(struct aml *a, uint32_t first, uint32_t size)
{
        put(a, 0x87 | 23 << 8, 3);
        put(a, 0x0c << 8 | 1 << 16, 3);
        put(a, 0, 4);
        put(a, first, 4);
        put(a, first + (size - 1), 4);
        put(a, 0, 4);
        put(a, size, 4);
}

void aml_resources_end(struct aml *a)
{
        put(a, 0x79, 2);
        size_t body = a->open[a->depth - 1] + 4 + 3;
        uint16_t size = (uint16_t)(a->bytes.size - body);
        memcpy(a->bytes.data + body - 2, &size, 2);
        aml_close(a);
}
