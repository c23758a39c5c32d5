#include "runtime/criu_wire.h"

#include <errno.h>
#include <string.h>

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

#define VARINT_BYTES_MAX 10

static void put_varint(struct buf *to, uint64_t value)
{
        for (; value >= 0x80; value >>= 7)
                (void)buf_putc(to, (char)(value | 0x80));
        (void)buf_putc(to, (char)value);
}

/* A negative number is its 64 bits, as the format has it for int32. */
static void put_number(struct buf *to, unsigned field, int64_t value)
{
        put_varint(to, field << 3 | WIRE_VARINT);
        put_varint(to, (uint64_t)value);
}

static void put_bytes(struct buf *to, unsigned field, const void *bytes, size_t size)
{
        put_varint(to, field << 3 | WIRE_BYTES);
        put_varint(to, size);
        (void)buf_append(to, bytes, size);
}

static void put_text(struct buf *to, unsigned field, const char *text)
{
        if (text)
                put_bytes(to, field, text, strlen(text));
}

static void put_flag(struct buf *to, unsigned field, bool value)
{
        if (value)
                put_number(to, field, 1);
}

/* Messages of two texts: ext_mount_map, cgroup_root, join_namespace. */
static void put_pairs(struct buf *to, unsigned field, const struct criu_pair *pairs, size_t length)
{
        for (size_t i = 0; i < length; i++) {
                auto_buf pair = { 0 };
                put_text(&pair, 1, pairs[i].key);
                put_text(&pair, 2, pairs[i].value);
                put_bytes(to, field, pair.data, pair.size);
        }
}

static void put_lists(struct buf *to, const struct criu_options *options)
{
        put_pairs(to, 23, options->mounts, options->mounts_length);
        put_pairs(to, 25, options->cgroup_roots, options->cgroup_roots_length);
        for (size_t i = 0; i < options->inherits_length; i++) {
                auto_buf inherit = { 0 };
                put_text(&inherit, 1, options->inherits[i].key);
                put_number(&inherit, 2, options->inherits[i].fd);
                put_bytes(to, 27, inherit.data, inherit.size);
        }
        for (char *const *external = options->externals; external && *external; external++)
                put_text(to, 37, *external);
        put_pairs(to, 39, options->joins, options->joins_length);
}

#define LOG_LEVEL 4 /* debug: what its errors are about is in the lines before them */

static void put_options(struct buf *to, const struct criu_options *options)
{
        put_number(to, 1, options->images_fd);
        if (options->pid)
                put_number(to, 2, options->pid);
        put_flag(to, 3, options->leave_running);
        put_flag(to, 4, options->ext_unix_sk);
        put_flag(to, 5, options->tcp_established);
        put_flag(to, 6, options->evasive_devices);
        put_flag(to, 7, options->shell_job);
        put_flag(to, 8, options->file_locks);
        put_number(to, 9, LOG_LEVEL);
        put_text(to, 10, options->log_file);
        put_flag(to, 12, true); /* notify_scripts */
        put_text(to, 13, options->root);
        put_text(to, 14, options->parent);
        put_flag(to, 15, options->track_memory);
        put_flag(to, 16, options->auto_dedup);
        if (options->work_fd >= 0)
                put_number(to, 17, options->work_fd);
        put_flag(to, 18, options->link_remap);
        put_flag(to, 24, true); /* manage_cgroups, which the mode refines */
        put_flag(to, 26, options->restore_sibling);
        put_number(to, 34, options->cgroups);
        put_text(to, 44, options->freeze_cgroup);
        put_flag(to, 50, true); /* orphan_pts_master */
        put_text(to, 51, options->config_file);
        put_flag(to, 52, options->tcp_close);
        put_text(to, 53, options->lsm_profile);
        put_text(to, 63, options->lsm_mount_context);
        put_lists(to, options);
}

void criu_encode(const struct criu_request *request, struct buf *to)
{
        auto_buf inner = { 0 };
        put_number(to, 1, request->kind);
        if (request->options) {
                put_options(&inner, request->options);
                put_bytes(to, 2, inner.data, inner.size);
        }
        if (request->notified)
                put_number(to, 3, request->success);
        put_flag(to, 4, request->keep_open);
        if (request->ask_memory_tracking)
                put_bytes(to, 5, "\x08\x01", 2); /* mem_track: true */
}

struct reader {
        const uint8_t *data;
        size_t size, offset;
};

struct field {
        uint64_t number;
        enum wire_type type;
        uint64_t value; /* of a varint */
        struct reader bytes;
};

static bool take_varint(struct reader *from, uint64_t *ret)
{
        uint64_t value = 0;
        for (unsigned i = 0; i < VARINT_BYTES_MAX && from->offset < from->size; i++) {
                uint8_t byte = from->data[from->offset++];
                value |= (uint64_t)(byte & 0x7f) << (7 * i);
                if (!(byte & 0x80)) {
                        *ret = value;
                        return true;
                }
        }
        return false;
}

static bool take_span(struct reader *from, uint64_t size, struct reader *ret)
{
        if (size > from->size - from->offset)
                return false;
        *ret = (struct reader){ .data = from->data + from->offset, .size = size };
        from->offset += size;
        return true;
}

/* 1 with a field, 0 at the end, -EBADMSG. */
static int take_field(struct reader *from, struct field *ret)
{
        uint64_t tag, size;
        if (from->offset == from->size)
                return 0;
        if (!take_varint(from, &tag))
                return -EBADMSG;
        *ret = (struct field){ .number = tag >> 3, .type = tag & 7 };
        bool good = false;
        switch (ret->type) {
        case WIRE_VARINT:
                good = take_varint(from, &ret->value);
                break;
        case WIRE_FIXED64:
                good = take_span(from, 8, &ret->bytes);
                break;
        case WIRE_BYTES:
                good = take_varint(from, &size) && take_span(from, size, &ret->bytes);
                break;
        case WIRE_FIXED32:
                good = take_span(from, 4, &ret->bytes);
                break;
        default:
                break;
        }
        return good && ret->number ? 1 : -EBADMSG;
}

/* Ends at the first zero byte, if there is one inside; what cannot be printed is '?'. */
static void copy_text(const struct reader *from, char *to, size_t size)
{
        size_t length = from->size < size - 1 ? from->size : size - 1;
        size_t i = 0;
        for (; i < length && from->data[i]; i++)
                to[i] = (char)(from->data[i] < ' ' || from->data[i] == 0x7f ? '?' : from->data[i]);
        while (i > 0 && to[i - 1] == '?') /* the line's end */
                i--;
        to[i] = '\0';
}

static int read_restored(struct reader from, struct criu_response *to)
{
        struct field field;
        int r;
        while ((r = take_field(&from, &field)) > 0)
                if (field.number == 1 && field.type == WIRE_VARINT)
                        to->pid = (int32_t)field.value;
        return r;
}

static int read_notification(struct reader from, struct criu_response *to)
{
        struct field field;
        int r;
        while ((r = take_field(&from, &field)) > 0) {
                if (field.number == 1 && field.type == WIRE_BYTES)
                        copy_text(&field.bytes, to->script, sizeof(to->script));
                else if (field.number == 2 && field.type == WIRE_VARINT)
                        to->pid = (int32_t)field.value;
        }
        return r;
}

static int read_features(struct reader from, struct criu_response *to)
{
        struct field field;
        int r;
        while ((r = take_field(&from, &field)) > 0)
                if (field.number == 1 && field.type == WIRE_VARINT)
                        to->tracks_memory = field.value != 0;
        return r;
}

static int read_version(struct reader from, struct criu_response *to)
{
        uint64_t parts[3] = { 0 };
        struct field field;
        int r;
        while ((r = take_field(&from, &field)) > 0) {
                if (field.type != WIRE_VARINT)
                        continue;
                if (field.number == 1 || field.number == 2)
                        parts[field.number - 1] = field.value;
                else if (field.number == 4)
                        parts[2] = field.value;
        }
        if (parts[0] > 9999 || parts[1] > 99 || parts[2] > 99)
                return -EBADMSG;
        to->version = (uint32_t)(parts[0] * 10000 + parts[1] * 100 + parts[2]);
        return r;
}

static void read_number(const struct field *field, struct criu_response *to)
{
        if (field->number == 1)
                to->kind = (uint32_t)field->value;
        else if (field->number == 2)
                to->success = field->value != 0;
        else if (field->number == 7)
                to->error = (int32_t)field->value;
}

static int read_bytes(const struct field *field, struct criu_response *to)
{
        switch (field->number) {
        case 4:
                return read_restored(field->bytes, to);
        case 5:
                return read_notification(field->bytes, to);
        case 8:
                return read_features(field->bytes, to);
        case 9:
                copy_text(&field->bytes, to->message, sizeof(to->message));
                return 0;
        case 10:
                return read_version(field->bytes, to);
        default:
                return 0;
        }
}

int criu_decode(const void *data, size_t size, struct criu_response *ret, struct err *err)
{
        struct reader from = { .data = data, .size = size };
        struct criu_response response = { 0 };
        struct field field;
        int r;
        while ((r = take_field(&from, &field)) > 0) {
                int bad = 0;
                if (field.type == WIRE_VARINT)
                        read_number(&field, &response);
                else if (field.type == WIRE_BYTES)
                        bad = read_bytes(&field, &response);
                if (bad < 0) {
                        r = bad;
                        break;
                }
        }
        if (r < 0)
                return err_plain(err, EBADMSG, "criu's answer of %zu bytes is damaged at byte %zu",
                                 size, from.offset);
        *ret = response;
        return 0;
}
