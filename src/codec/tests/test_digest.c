#include "codec/digest.h"

#include "base/str.h"
#include "base/tests/test.h"

#define EMPTY_SHA256 "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
/* FIPS 180-2, appendix B.1 and C.1 */
#define ABC_SHA256 "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ABC_SHA512                                                                                 \
        "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"                  \
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"

static void known_answers(void **state)
{
        (void)state;
        struct digest digest, expected;

        digest_bytes("", 0, &digest);
        assert_string_equal(digest.text, EMPTY_SHA256);
        digest_bytes("abc", 3, &digest);
        assert_string_equal(digest.text, ABC_SHA256);
        assert_string_equal(digest_hex(&digest), &ABC_SHA256[7]);

        assert_int_equal(digest_parse(ABC_SHA512, &expected, NULL), 0);
        auto_hasher hasher = hasher_create_for(&expected);
        hasher_update(hasher, "a", 1);
        hasher_update(hasher, "", 0);
        hasher_update(hasher, "bc", 2);
        hasher_finish(hasher, &digest);
        assert_true(digest_equal(&digest, &expected));
}

static void only_digests_are_parsed(void **state)
{
        (void)state;
        static const char *const rows[] = {
                "",
                "sha256",
                "sha256:",
                "sha256:abc",
                "SHA256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                "sha256:BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                "sha256:ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                ABC_SHA256 "0",
                ABC_SHA256 " ",
                ABC_SHA256 "/../x",
                "sha512:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                "md5:900150983cd24fb0d6963f7d28e17f72",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        };
        struct digest digest = { "untouched" };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct err err = { 0 };
                assert_int_equal(digest_parse(rows[i], &digest, &err), -EINVAL);
                assert_non_null(strstr(err.text, "is not a digest"));
        }
        assert_string_equal(digest.text, "untouched");
}

static void a_mismatch_names_both(void **state)
{
        (void)state;
        struct digest a, b;
        struct err err = { 0 };
        digest_bytes("a", 1, &a);
        digest_bytes("b", 1, &b);
        assert_int_equal(digest_check(&a, &a, "layer", &err), 0);
        assert_int_equal(digest_check(&a, &b, "layer", &err), -EBADMSG);
        assert_non_null(strstr(err.text, a.text));
        assert_non_null(strstr(err.text, b.text));
        assert_true(str_starts(err.text, "layer: "));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(known_answers),
                cmocka_unit_test(only_digests_are_parsed),
                cmocka_unit_test(a_mismatch_names_both),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
