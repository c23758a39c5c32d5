/* Blobs: verified, resumable, whole or invisible. */
#include "image/tests/fixture.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/file.h"

static struct digest digest_of(const char *text)
{
        struct digest digest;
        digest_bytes(text, strlen(text), &digest);
        return digest;
}

static struct content *content_of(void **state)
{
        return ((struct fixture *)*state)->st->content;
}

static void test_write_and_read(void **state)
{
        struct content *content = content_of(state);
        struct digest digest = digest_of("hello");
        auto_free char *text = NULL;
        size_t size;
        assert_false(content_has(content, &digest, UINT64_MAX));
        assert_int_equal(content_read(content, &digest, 100, &text, &size, NULL), -ENOENT);
        assert_return_code(content_write(content, &digest, "hello", 5, NULL), 0);
        assert_true(content_has(content, &digest, 5));
        assert_false(content_has(content, &digest, 6));
        assert_return_code(content_read(content, &digest, 100, &text, &size, NULL), 0);
        assert_string_equal(text, "hello");
        assert_return_code(content_verify(content, &digest, NULL, NULL), 0);
        assert_int_equal(fixture_count(*state, "content/ingest"), 0);
        assert_int_equal(content_delete(content, &digest), 5);
        assert_false(content_has(content, &digest, UINT64_MAX));
        assert_int_equal(content_delete(content, &digest), 0);
}

static void test_wrong_digest(void **state)
{
        struct content *content = content_of(state);
        struct digest digest = digest_of("hello");
        struct err err = { 0 };
        assert_int_equal(content_write(content, &digest, "jello", 5, &err), -EBADMSG);
        assert_non_null(strstr(err_text(&err), digest.text));
        assert_false(content_has(content, &digest, UINT64_MAX));
        assert_int_equal(fixture_count(*state, "content/ingest"), 0);
}

static void test_wrong_size(void **state)
{
        struct content *content = content_of(state);
        struct digest digest = digest_of("hello");
        uint64_t offset;
        struct ingest *ingest = NULL;
        assert_return_code(ingest_begin(content, &digest, 6, &ingest, &offset, NULL), 0);
        assert_return_code(ingest_write(ingest, "hello", 5, NULL), 0);
        assert_int_equal(ingest_write(ingest, "xy", 2, NULL), -EFBIG);
        assert_int_equal(ingest_commit(ingest, NULL, NULL), -EBADMSG);
        ingest_destroy(ingest);
        assert_int_equal(fixture_count(*state, "content/ingest"), 0);
}

static void test_resume(void **state)
{
        struct fixture *f = *state;
        struct digest digest = digest_of("hello world");
        uint64_t offset;
        struct ingest *ingest = NULL;
        assert_return_code(ingest_begin(f->st->content, &digest, 11, &ingest, &offset, NULL), 0);
        assert_int_equal(offset, 0);
        assert_return_code(ingest_write(ingest, "hello", 5, NULL), 0);
        ingest_destroy(ingest);
        assert_int_equal(fixture_count(f, "content/ingest"), 1);

        fixture_reopen(f, NULL);
        assert_return_code(ingest_begin(f->st->content, &digest, 11, &ingest, &offset, NULL), 0);
        assert_int_equal(offset, 5);
        assert_return_code(ingest_replay(ingest, NULL, NULL, NULL), 0);
        assert_int_equal(ingest_offset(ingest), 5);
        assert_return_code(ingest_write(ingest, " world", 6, NULL), 0);
        assert_return_code(ingest_commit(ingest, NULL, NULL), 0);
        ingest_destroy(ingest);
        assert_true(content_has(f->st->content, &digest, 11));
        assert_int_equal(fixture_count(f, "content/ingest"), 0);
}

/* A partial that a power loss filled with zeros is found out and does not survive. */
static void test_resume_of_rubbish(void **state)
{
        struct content *content = content_of(state);
        struct digest digest = digest_of("hello world");
        uint64_t offset;
        struct ingest *ingest = NULL;
        assert_return_code(ingest_begin(content, &digest, 11, &ingest, &offset, NULL), 0);
        assert_return_code(ingest_write(ingest, "\0\0\0\0\0", 5, NULL), 0);
        ingest_destroy(ingest);
        assert_return_code(ingest_begin(content, &digest, 11, &ingest, &offset, NULL), 0);
        assert_return_code(ingest_replay(ingest, NULL, NULL, NULL), 0);
        assert_return_code(ingest_write(ingest, " world", 6, NULL), 0);
        assert_int_equal(ingest_commit(ingest, NULL, NULL), -EBADMSG);
        ingest_destroy(ingest);
        assert_int_equal(fixture_count(*state, "content/ingest"), 0);
}

/* More than the blob can have was left: start over. */
static void test_resume_of_too_much(void **state)
{
        struct content *content = content_of(state);
        struct digest digest = digest_of("hello");
        uint64_t offset = 1;
        struct ingest *ingest = NULL;
        assert_return_code(ingest_begin(content, &digest, 100, &ingest, &offset, NULL), 0);
        assert_return_code(ingest_write(ingest, "hello world", 11, NULL), 0);
        ingest_destroy(ingest);
        assert_return_code(content_write(content, &digest, "hello", 5, NULL), 0);
        assert_true(content_has(content, &digest, 5));
}

static void test_unknown_digest(void **state)
{
        struct fixture *f = *state;
        struct ingest *ingest = NULL;
        struct digest found, expected = digest_of("hello");
        assert_return_code(ingest_begin_new(f->st->content, 100, &ingest, NULL), 0);
        assert_return_code(ingest_write(ingest, "hello", 5, NULL), 0);
        assert_return_code(ingest_commit(ingest, &found, NULL), 0);
        ingest_destroy(ingest);
        assert_true(digest_equal(&found, &expected));

        /* Given up, it vanishes; left by a crash, the next open takes it away. */
        assert_return_code(ingest_begin_new(f->st->content, 100, &ingest, NULL), 0);
        assert_return_code(ingest_write(ingest, "bye", 3, NULL), 0);
        ingest_destroy(ingest);
        assert_int_equal(fixture_count(f, "content/ingest"), 0);
        auto_free char *left = fixture_path(f, "content/ingest/new-0123456789abcdef");
        assert_return_code(file_replace(AT_FDCWD, left, "x", 1, 0600, false, NULL), 0);
        fixture_reopen(f, NULL);
        assert_int_equal(fixture_count(f, "content/ingest"), 0);
}

static void test_damage(void **state)
{
        struct fixture *f = *state;
        struct digest digest = digest_of("hello");
        struct err err = { 0 };
        auto_free char *text = NULL;
        assert_return_code(content_write(f->st->content, &digest, "hello", 5, NULL), 0);
        auto_free char *relative = xasprintf("content/blobs/sha256/%s", digest_hex(&digest));
        auto_free char *path = fixture_path(f, relative);
        assert_return_code(file_replace(AT_FDCWD, path, "jello", 5, 0644, false, NULL), 0);
        assert_int_equal(content_verify(f->st->content, &digest, NULL, NULL), -EBADMSG);
        assert_int_equal(content_read(f->st->content, &digest, 10, &text, NULL, &err), -EBADMSG);
        assert_non_null(strstr(err_text(&err), "pull the image again"));
}

static void test_sha512(void **state)
{
        struct content *content = content_of(state);
        struct digest digest;
        assert_return_code(digest_parse("sha512:"
                                        "9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519"
                                        "673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef4"
                                        "6f73bcdec043",
                                        &digest, NULL),
                           0);
        assert_return_code(content_write(content, &digest, "hello", 5, NULL), 0);
        assert_true(content_has(content, &digest, 5));
        assert_return_code(content_verify(content, &digest, NULL, NULL), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_begin, fixture_finish)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_write_and_read),
                TEST(test_wrong_digest),
                TEST(test_wrong_size),
                TEST(test_resume),
                TEST(test_resume_of_rubbish),
                TEST(test_resume_of_too_much),
                TEST(test_unknown_digest),
                TEST(test_damage),
                TEST(test_sha512),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
