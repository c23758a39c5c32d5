#include "codec/compress.h"

#include <errno.h>
#include <zlib.h>
#include <zstd.h>

#include "base/buf.h"
#include "base/str.h"
#include "base/tests/test.h"

static int collect(void *arg, const void *data, size_t size, struct err *err)
{
        struct buf *buf = arg;
        if (buf_append(buf, data, size) < 0)
                return err_plain(err, ENOSPC, "over quota");
        return 0;
}

/* Text that compresses, with noise that does not. */
static void make_sample(struct buf *buf, size_t size)
{
        uint32_t seed = 12345;
        while (buf->size < size) {
                seed = seed * 1664525 + 1013904223;
                if (seed & 0x10000000)
                        buf_printf(buf, "line %zu of the sample\n", buf->size);
                else
                        buf_append(buf, &seed, sizeof(seed));
        }
}

static void pack(enum compression compression, const struct buf *in, struct buf *out)
{
        auto_compressor c = NULL;
        struct err err = { 0 };
        assert_int_equal(
                compressor_create(compression, COMPRESS_LEVEL_DEFAULT, collect, out, &c, &err), 0);
        size_t half = in->size / 2;
        const char *data = in->data ? in->data : "";
        assert_int_equal(compressor_write(c, data, half, &err), 0);
        assert_int_equal(compressor_write(c, data + half, in->size - half, &err), 0);
        assert_int_equal(compressor_finish(c, &err), 0);
}

/* Feeds `in` in pieces; returns what failed first. */
static int unpack(enum compression compression, const struct buf *in, size_t piece, struct buf *out,
                  struct err *err)
{
        auto_decompressor d = NULL;
        int r = decompressor_create(compression, collect, out, &d, err);
        for (size_t at = 0; r == 0 && at < in->size; at += piece)
                r = decompressor_write(d, in->data + at,
                                       in->size - at < piece ? in->size - at : piece, err);
        return r == 0 ? decompressor_finish(d, err) : r;
}

static void assert_same(const struct buf *a, const struct buf *b)
{
        assert_int_equal(a->size, b->size);
        assert_memory_equal(a->data, b->data, a->size);
}

static const enum compression all[] = { COMPRESSION_NONE, COMPRESSION_GZIP, COMPRESSION_ZSTD };

static void what_is_packed_is_unpacked_whatever_the_pieces(void **state)
{
        (void)state;
        static const size_t pieces[] = { 1, 7, 4096, 1 << 20 };
        auto_buf sample = { 0 };
        make_sample(&sample, 300000);

        for (size_t i = 0; i < ELEMENTS(all); i++) {
                auto_buf packed = { 0 };
                pack(all[i], &sample, &packed);
                for (size_t j = 0; j < ELEMENTS(pieces); j++) {
                        auto_buf out = { 0 };
                        struct err err = { 0 };
                        assert_int_equal(unpack(COMPRESSION_AUTO, &packed, pieces[j], &out, &err),
                                         0);
                        assert_same(&sample, &out);
                }
        }
}

static void the_format_is_told_by_its_first_bytes(void **state)
{
        (void)state;
        auto_buf sample = { 0 };
        make_sample(&sample, 100);
        for (size_t i = 0; i < ELEMENTS(all); i++) {
                auto_buf packed = { 0 }, out = { 0 };
                auto_decompressor d = NULL;
                pack(all[i], &sample, &packed);
                assert_int_equal(compression_detect(packed.data, packed.size), all[i]);
                decompressor_create(COMPRESSION_AUTO, collect, &out, &d, NULL);
                decompressor_write(d, packed.data, 3, NULL);
                assert_int_equal(decompressor_format(d), COMPRESSION_AUTO);
                decompressor_write(d, packed.data + 3, 1, NULL);
                assert_int_equal(decompressor_format(d), all[i]);
        }
        assert_string_equal(compression_name(COMPRESSION_ZSTD), "zstd");
}

static void short_and_empty_streams(void **state)
{
        (void)state;
        static const struct buf none = { 0 };
        for (size_t i = 0; i < ELEMENTS(all); i++) {
                auto_buf packed = { 0 }, out = { 0 };
                pack(all[i], &none, &packed);
                assert_int_equal(unpack(COMPRESSION_AUTO, &packed, 1, &out, NULL), 0);
                assert_int_equal(out.size, 0);
        }
        auto_buf out = { 0 };
        struct buf two = { .data = (char *)"ab", .size = 2 };
        assert_int_equal(unpack(COMPRESSION_AUTO, &two, 1, &out, NULL), 0);
        assert_string_equal(buf_text(&out), "ab");
        struct buf cut = { .data = (char *)"\x1f\x8b", .size = 2 };
        assert_int_equal(unpack(COMPRESSION_AUTO, &cut, 1, &out, NULL), -EBADMSG);
        assert_int_equal(unpack(COMPRESSION_GZIP, &none, 1, &out, NULL), -EBADMSG);
        assert_int_equal(unpack(COMPRESSION_ZSTD, &none, 1, &out, NULL), -EBADMSG);
}

static void members_and_frames_are_joined(void **state)
{
        (void)state;
        auto_buf a = { 0 }, b = { 0 }, both = { 0 };
        make_sample(&a, 300000);
        make_sample(&b, 5);
        buf_append(&both, a.data, a.size);
        buf_append(&both, b.data, b.size);
        for (size_t i = 1; i < ELEMENTS(all); i++) {
                static const size_t pieces[] = { 1, 13, 1 << 20 };
                auto_buf packed = { 0 };
                pack(all[i], &a, &packed);
                pack(all[i], &b, &packed);
                for (size_t j = 0; j < ELEMENTS(pieces); j++) {
                        auto_buf out = { 0 };
                        assert_int_equal(unpack(all[i], &packed, pieces[j], &out, NULL), 0);
                        assert_same(&both, &out);
                }
        }
}

static void skippable_zstd_frames_are_skipped(void **state)
{
        (void)state;
        auto_buf sample = { 0 }, packed = { 0 }, out = { 0 };
        make_sample(&sample, 1000);
        buf_append(&packed, "\x5f\x2a\x4d\x18\x03\x00\x00\x00xyz", 11);
        pack(COMPRESSION_ZSTD, &sample, &packed);
        buf_append(&packed, "\x50\x2a\x4d\x18\x00\x00\x00\x00", 8);
        assert_int_equal(unpack(COMPRESSION_AUTO, &packed, 5, &out, NULL), 0);
        assert_same(&sample, &out);
}

static void every_cut_is_noticed(void **state)
{
        (void)state;
        auto_buf sample = { 0 };
        make_sample(&sample, 600);
        for (size_t i = 1; i < ELEMENTS(all); i++) {
                auto_buf packed = { 0 };
                pack(all[i], &sample, &packed);
                for (size_t size = 0; size < packed.size; size++) {
                        struct buf cut = { .data = packed.data, .size = size };
                        auto_buf out = { 0 };
                        struct err err = { 0 };
                        assert_int_equal(unpack(all[i], &cut, 100, &out, &err), -EBADMSG);
                        assert_non_null(strstr(err.text, compression_name(all[i])));
                }
        }
}

static void damage_is_noticed(void **state)
{
        (void)state;
        auto_buf sample = { 0 };
        make_sample(&sample, 600);
        for (size_t i = 1; i < ELEMENTS(all); i++) {
                auto_buf packed = { 0 };
                pack(all[i], &sample, &packed);
                for (size_t at = 10; at < packed.size; at++) { /* past the header's free fields */
                        auto_buf out = { .limit_bytes = 1 << 20 };
                        packed.data[at] ^= 0x55;
                        if (unpack(all[i], &packed, 100, &out, NULL) == 0)
                                fail_msg("%s: byte %zu of %zu", compression_name(all[i]), at,
                                         packed.size);
                        packed.data[at] ^= 0x55;
                }
        }
}

static void junk_after_the_end_is_damage(void **state)
{
        (void)state;
        auto_buf sample = { 0 };
        make_sample(&sample, 100);
        for (size_t i = 1; i < ELEMENTS(all); i++) {
                auto_buf packed = { 0 }, out = { 0 };
                pack(all[i], &sample, &packed);
                buf_puts(&packed, "junkjunkjunkjunk");
                assert_int_equal(unpack(all[i], &packed, 1000, &out, NULL), -EBADMSG);
        }
}

static void the_sink_can_stop_a_bomb(void **state)
{
        (void)state;
        for (size_t i = 1; i < ELEMENTS(all); i++) {
                auto_buf zeros = { 0 }, packed = { 0 };
                auto_buf out = { .limit_bytes = 1 << 20 };
                struct err err = { 0 };
                memset(buf_reserve(&zeros, 50 << 20), 0, 50 << 20);
                buf_commit(&zeros, 50 << 20);
                pack(all[i], &zeros, &packed);
                assert_true(packed.size < 100000);
                assert_int_equal(unpack(all[i], &packed, packed.size, &out, &err), -ENOSPC);
                assert_string_equal(err.text, "over quota");
                assert_true(out.size <= 1 << 20);
        }
}

static void a_zstd_window_that_is_too_large_is_refused(void **state)
{
        (void)state;
        /* Magic, a frame header without content size, window descriptor of 2^31, one empty block.
         */
        struct buf huge = { .data = (char *)"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00", .size = 9 };
        struct buf good = { .data = (char *)"\x28\xb5\x2f\xfd\x00\x88\x01\x00\x00", .size = 9 };
        auto_buf out = { 0 };
        assert_int_equal(unpack(COMPRESSION_ZSTD, &good, 9, &out, NULL), 0);
        assert_int_equal(unpack(COMPRESSION_ZSTD, &huge, 9, &out, NULL), -EBADMSG);
}

/* Optional gzip header fields: extra, name, comment, header checksum. */
static void gzip_headers_may_have_every_field(void **state)
{
        (void)state;
        auto_buf packed = { 0 };
        unsigned char out[256];
        gz_header header = { .extra = (Bytef *)"extra",
                             .extra_len = 5,
                             .name = (Bytef *)"name",
                             .comment = (Bytef *)"comment",
                             .hcrc = 1 };
        z_stream z = { 0 };
        deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY);
        deflateSetHeader(&z, &header);
        z.next_in = (Bytef *)"hello";
        z.avail_in = 5;
        z.next_out = out;
        z.avail_out = sizeof(out);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        buf_append(&packed, out, sizeof(out) - z.avail_out);
        deflateEnd(&z);
        for (size_t piece = 1; piece < packed.size; piece++) {
                auto_buf text = { 0 };
                assert_int_equal(unpack(COMPRESSION_AUTO, &packed, piece, &text, NULL), 0);
                assert_string_equal(buf_text(&text), "hello");
        }
}

static void equal_input_gives_equal_output_and_bad_levels_are_refused(void **state)
{
        (void)state;
        auto_buf sample = { 0 };
        make_sample(&sample, 10000);
        for (size_t i = 0; i < ELEMENTS(all); i++) {
                auto_buf a = { 0 }, b = { 0 };
                pack(all[i], &sample, &a);
                pack(all[i], &sample, &b);
                assert_same(&a, &b);
        }
        struct compressor *c = NULL;
        assert_int_equal(compressor_create(COMPRESSION_GZIP, 10, collect, NULL, &c, NULL), -EINVAL);
        assert_int_equal(compressor_create(COMPRESSION_ZSTD, 20, collect, NULL, &c, NULL), -EINVAL);
        assert_int_equal(compressor_create(COMPRESSION_AUTO, 1, collect, NULL, &c, NULL), -EINVAL);
        assert_null(c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_packed_is_unpacked_whatever_the_pieces),
                cmocka_unit_test(the_format_is_told_by_its_first_bytes),
                cmocka_unit_test(short_and_empty_streams),
                cmocka_unit_test(members_and_frames_are_joined),
                cmocka_unit_test(skippable_zstd_frames_are_skipped),
                cmocka_unit_test(every_cut_is_noticed),
                cmocka_unit_test(damage_is_noticed),
                cmocka_unit_test(junk_after_the_end_is_damage),
                cmocka_unit_test(the_sink_can_stop_a_bomb),
                cmocka_unit_test(a_zstd_window_that_is_too_large_is_refused),
                cmocka_unit_test(gzip_headers_may_have_every_field),
                cmocka_unit_test(equal_input_gives_equal_output_and_bad_levels_are_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
