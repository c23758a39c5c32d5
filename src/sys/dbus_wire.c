#include "sys/dbus_wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/str.h"

#define FIXED_HEADER_SIZE 16 /* up to and with the length of the header fields */
#define PROTOCOL_VERSION  1

enum {
        FIELD_PATH = 1,
        FIELD_INTERFACE,
        FIELD_MEMBER,
        FIELD_ERROR,
        FIELD_REPLY_SERIAL,
        FIELD_DESTINATION,
        FIELD_SENDER,
        FIELD_SIGNATURE,
};

void dbus_put_padding(struct buf *to, size_t alignment)
{
        while (to->size % alignment)
                buf_putc(to, 0);
}

void dbus_put_byte(struct buf *to, uint8_t value)
{
        buf_append(to, &value, 1);
}

void dbus_put_u32(struct buf *to, uint32_t value)
{
        uint32_t wire = htole32(value);
        dbus_put_padding(to, sizeof(wire));
        buf_append(to, &wire, sizeof(wire));
}

void dbus_put_u64(struct buf *to, uint64_t value)
{
        uint64_t wire = htole64(value);
        dbus_put_padding(to, sizeof(wire));
        buf_append(to, &wire, sizeof(wire));
}

void dbus_put_string(struct buf *to, const char *text)
{
        dbus_put_u32(to, (uint32_t)strlen(text));
        buf_append(to, text, strlen(text) + 1);
}

void dbus_put_signature(struct buf *to, const char *text)
{
        dbus_put_byte(to, (uint8_t)strlen(text));
        buf_append(to, text, strlen(text) + 1);
}

struct dbus_array dbus_array_begin(struct buf *to, size_t element_alignment)
{
        struct dbus_array array;
        dbus_put_u32(to, 0);
        array.length_at = to->size - sizeof(uint32_t);
        dbus_put_padding(to, element_alignment);
        array.start = to->size;
        return array;
}

void dbus_array_end(struct buf *to, struct dbus_array array)
{
        uint32_t wire = htole32((uint32_t)(to->size - array.start));
        memcpy(to->data + array.length_at, &wire, sizeof(wire));
}

static void put_field(struct buf *to, uint8_t code, const char *signature, const char *text)
{
        if (!text)
                return;
        dbus_put_padding(to, 8);
        dbus_put_byte(to, code);
        dbus_put_signature(to, signature);
        if (*signature == 'g')
                dbus_put_signature(to, text);
        else
                dbus_put_string(to, text);
}

void dbus_put_call(struct buf *to, const struct dbus_call *call)
{
        auto_buf header = { 0 };
        dbus_put_byte(&header, 'l');
        dbus_put_byte(&header, DBUS_METHOD_CALL);
        dbus_put_byte(&header, 0);
        dbus_put_byte(&header, PROTOCOL_VERSION);
        dbus_put_u32(&header, call->body ? (uint32_t)call->body->size : 0);
        dbus_put_u32(&header, call->serial);
        struct dbus_array fields = dbus_array_begin(&header, 8);
        put_field(&header, FIELD_PATH, "o", call->path);
        put_field(&header, FIELD_DESTINATION, "s", call->destination);
        put_field(&header, FIELD_INTERFACE, "s", call->interface);
        put_field(&header, FIELD_MEMBER, "s", call->member);
        put_field(&header, FIELD_SIGNATURE, "g", call->signature);
        dbus_array_end(&header, fields);
        dbus_put_padding(&header, 8);
        buf_append(to, header.data, header.size);
        if (call->body && call->body->size)
                buf_append(to, call->body->data, call->body->size);
}

static uint32_t load_u32(const uint8_t *at, bool big_endian)
{
        uint32_t wire;
        memcpy(&wire, at, sizeof(wire));
        return big_endian ? be32toh(wire) : le32toh(wire);
}

ssize_t dbus_message_size(const void *data, size_t size)
{
        const uint8_t *bytes = data;
        if (size < FIXED_HEADER_SIZE)
                return 0;
        if ((bytes[0] != 'l' && bytes[0] != 'B') || bytes[3] != PROTOCOL_VERSION)
                return -EBADMSG;
        bool big = bytes[0] == 'B';
        uint64_t fields = load_u32(bytes + 12, big), body = load_u32(bytes + 4, big);
        uint64_t total = ((FIXED_HEADER_SIZE + fields + 7) & ~(uint64_t)7) + body;
        return total > DBUS_MESSAGE_SIZE_MAX ? -EMSGSIZE : (ssize_t)total;
}

static int skip_padding(struct dbus_reader *reader, size_t alignment)
{
        size_t left = (alignment - reader->at % alignment) % alignment;
        if (left > reader->size - reader->at)
                return -EBADMSG;
        for (; left; left--)
                if (reader->data[reader->at++])
                        return -EBADMSG;
        return 0;
}

/* `size` bytes at `alignment`, or NULL. */
static const uint8_t *take(struct dbus_reader *reader, size_t alignment, size_t size)
{
        if (skip_padding(reader, alignment) < 0 || size > reader->size - reader->at)
                return NULL;
        const uint8_t *at = reader->data + reader->at;
        reader->at += size;
        return at;
}

int dbus_get_byte(struct dbus_reader *reader, uint8_t *ret)
{
        const uint8_t *at = take(reader, 1, 1);
        if (!at)
                return -EBADMSG;
        *ret = *at;
        return 0;
}

int dbus_get_u32(struct dbus_reader *reader, uint32_t *ret)
{
        const uint8_t *at = take(reader, 4, 4);
        if (!at)
                return -EBADMSG;
        *ret = load_u32(at, reader->big_endian);
        return 0;
}

/* A text of `length` bytes and its NUL, with none inside. */
static int get_text(struct dbus_reader *reader, size_t length, const char **ret)
{
        const uint8_t *at = take(reader, 1, length);
        const uint8_t *nul = at ? take(reader, 1, 1) : NULL;
        if (!nul || *nul || memchr(at, 0, length))
                return -EBADMSG;
        *ret = (const char *)at;
        return 0;
}

int dbus_get_string(struct dbus_reader *reader, const char **ret)
{
        uint32_t length;
        int r = dbus_get_u32(reader, &length);
        return r < 0 ? r : get_text(reader, length, ret);
}

int dbus_get_signature(struct dbus_reader *reader, const char **ret)
{
        uint8_t length;
        int r = dbus_get_byte(reader, &length);
        return r < 0 ? r : get_text(reader, length, ret);
}

int dbus_get_variant_string(struct dbus_reader *reader, const char **ret)
{
        const char *signature;
        int r = dbus_get_signature(reader, &signature);
        if (r < 0 || (!streq(signature, "s") && !streq(signature, "o")))
                return -EBADMSG;
        return dbus_get_string(reader, ret);
}

struct dbus_reader dbus_read_body(const struct dbus_message *message)
{
        return (struct dbus_reader){ .data = message->body,
                                     .size = message->body_size,
                                     .big_endian = message->big_endian };
}

/* A value of one simple type, as future header fields may have. */
static int skip_simple(struct dbus_reader *reader, char type)
{
        static const struct {
                char type;
                uint8_t size;
        } fixed[] = { { 'y', 1 }, { 'n', 2 }, { 'q', 2 }, { 'b', 4 }, { 'i', 4 },
                      { 'u', 4 }, { 'h', 4 }, { 'x', 8 }, { 't', 8 }, { 'd', 8 } };
        const char *text;
        if (type == 's' || type == 'o')
                return dbus_get_string(reader, &text);
        if (type == 'g')
                return dbus_get_signature(reader, &text);
        for (size_t i = 0; i < ELEMENTS(fixed); i++)
                if (fixed[i].type == type)
                        return take(reader, fixed[i].size, fixed[i].size) ? 0 : -EBADMSG;
        return -EBADMSG;
}

static int read_field(struct dbus_reader *reader, struct dbus_message *message)
{
        const char **texts[] = {
                [FIELD_PATH] = &message->path,     [FIELD_INTERFACE] = &message->interface,
                [FIELD_MEMBER] = &message->member, [FIELD_ERROR] = &message->error,
                [FIELD_SENDER] = &message->sender, [FIELD_SIGNATURE] = &message->signature,
        };
        static const char *const types[] = {
                [FIELD_PATH] = "o",      [FIELD_INTERFACE] = "s",    [FIELD_MEMBER] = "s",
                [FIELD_ERROR] = "s",     [FIELD_REPLY_SERIAL] = "u", [FIELD_SENDER] = "s",
                [FIELD_SIGNATURE] = "g",
        };
        uint8_t code;
        const char *type;
        if (skip_padding(reader, 8) < 0 || dbus_get_byte(reader, &code) < 0 ||
            dbus_get_signature(reader, &type) < 0 || strlen(type) != 1)
                return -EBADMSG;
        if (code >= ELEMENTS(types) || !types[code])
                return skip_simple(reader, *type);
        if (!streq(type, types[code]))
                return -EBADMSG;
        if (*type == 'u')
                return dbus_get_u32(reader, &message->reply_serial);
        return *type == 'g' ? dbus_get_signature(reader, texts[code])
                            : dbus_get_string(reader, texts[code]);
}

/* What each type cannot be without. */
static bool is_complete(const struct dbus_message *m)
{
        switch (m->type) {
        case DBUS_METHOD_CALL:
                return m->path && m->member;
        case DBUS_METHOD_RETURN:
                return m->reply_serial;
        case DBUS_ERROR:
                return m->reply_serial && m->error;
        case DBUS_SIGNAL:
                return m->path && m->interface && m->member;
        default:
                return true; /* of a future version: to be passed over */
        }
}

int dbus_parse(const void *data, size_t size, struct dbus_message *ret, struct err *err)
{
        const uint8_t *bytes = data;
        ssize_t whole = dbus_message_size(data, size);
        if (whole <= 0 || (size_t)whole != size || bytes[1] == 0)
                return err_plain(err, EBADMSG, "malformed D-Bus message");
        bool big = bytes[0] == 'B';
        struct dbus_message message = { .type = bytes[1],
                                        .serial = load_u32(bytes + 8, big),
                                        .big_endian = big,
                                        .body_size = load_u32(bytes + 4, big) };
        struct dbus_reader reader = { .data = bytes,
                                      .size = FIXED_HEADER_SIZE + load_u32(bytes + 12, big),
                                      .at = FIXED_HEADER_SIZE,
                                      .big_endian = big };
        int r = 0;
        while (r == 0 && reader.at < reader.size)
                r = read_field(&reader, &message);
        if (r < 0 || message.serial == 0 || !is_complete(&message))
                return err_plain(err, EBADMSG, "malformed header of a D-Bus message");
        message.body = bytes + size - message.body_size;
        *ret = message;
        return 0;
}
