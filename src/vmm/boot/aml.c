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
#define OP_REGION  0x80
#define OP_FIELD   0x81
#define OP_STORE   0x70
#define OP_AND     0x7b
#define OP_IF      0xa0
#define OP_NOTIFY  0x86
#define OP_LOCAL0  0x60
#define SYSTEM_IO  1
#define DWORDS     0x03 /* of a field: access by double words */
#define THREE      0x032f

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

void aml_ports(struct aml *a, const char *region, uint16_t port, const char *const *words,
               unsigned length)
{
        put(a, OP_EXT | OP_REGION << 8, 2);
        buf_puts(&a->bytes, region);
        put(a, SYSTEM_IO, 1);
        aml_integer(a, port);
        aml_integer(a, 4ull * length);
        put(a, OP_EXT | OP_FIELD << 8, 2);
        open_package(a);
        buf_puts(&a->bytes, region);
        put(a, DWORDS, 1);
        for (unsigned i = 0; i < length; i++) {
                buf_puts(&a->bytes, words[i]);
                put(a, 32, 1);
        }
        aml_close(a);
}

void aml_store(struct aml *a, uint64_t value, const char *text)
{
        put(a, OP_STORE, 1);
        aml_integer(a, value);
        buf_puts(&a->bytes, text);
}

void aml_load(struct aml *a, const char *text)
{
        put(a, OP_STORE, 1);
        buf_puts(&a->bytes, text);
        put(a, OP_LOCAL0, 1);
}

void aml_if_any(struct aml *a, uint32_t bits)
{
        put(a, OP_IF, 1);
        open_package(a);
        put(a, OP_AND | OP_LOCAL0 << 8, 2);
        aml_integer(a, bits);
        put(a, 0, 1); /* kept nowhere */
}

void aml_notify(struct aml *a, const char *device, uint8_t value)
{
        put(a, OP_NOTIFY, 1);
        buf_puts(&a->bytes, device);
        aml_integer(a, value);
}

void aml_call(struct aml *a, const char *text)
{
        if (*text == '\\') {
                put(a, *text++, 1);
                put(a, THREE, 2);
        }
        buf_puts(&a->bytes, text);
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
        put(a, level ? 0x09 : 0x03, 1); /* level is shared */
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
