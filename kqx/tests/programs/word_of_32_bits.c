/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * What a 32-bit process does with a pad: it opens, maps, counts, takes and kicks,
 * as any process, and registers nothing.
 *
 * The program has no library, because a FreeBSD without lib32 has none for it.
 */
#include <sys/param.h>
#include <sys/event.h>
#include <sys/fcntl.h>
#include <sys/kqx.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <unistd.h>

/* More lines than any pad has. */
#define	TOO_MANY	(1 << 24)

_Static_assert(sizeof(struct kqx_word) == 64, "as for a 64-bit process");
_Static_assert(sizeof(void *) == 4, "to be built for i386");

/* Makes a system call: the kernel skips the first word of the stack. */
static int
call(int number, const uint32_t *stack)
{
	int result;
	bool failed;

	result = number;
	__asm__ volatile ("xchgl %%esp, %2; int $0x80; xchgl %%esp, %2" :
	    "+a" (result), "=@ccc" (failed), "+r" (stack) : : "edx", "memory");
	return (failed ? -result : result);
}

/* -errno, or what the call returns. */
#define	CALL(number, ...)	call(number, (const uint32_t[]){ 0, __VA_ARGS__ })
#define	AT(pointer)		((uint32_t)(uintptr_t)(pointer))

/* For kqx_kick(). */
int
ioctl(int fd, unsigned long command, ...)
{
	va_list list;
	int result;

	va_start(list, command);
	result = CALL(SYS_ioctl, fd, command, AT(va_arg(list, void *)));
	va_end(list);
	return (result);
}

#define	CHECK(what) do {						\
	static const char text[] = #what " is not so\n";		\
	if (!(what)) {							\
		CALL(SYS_write, STDERR_FILENO, AT(text), sizeof(text) - 1); \
		CALL(SYS_exit, 1);					\
	}								\
} while (0)

static int
map(int fd, int protection, uint64_t offset)
{
	return (CALL(SYS_mmap, 0, PAGE_SIZE, protection, MAP_SHARED, fd,
	    (uint32_t)offset, offset >> 32));
}

/* An address is no errno, though it may be negative. */
static bool
is_mapped(int result)
{
	return (result % PAGE_SIZE == 0);
}

static void
count(void)
{
	struct kqx_word *words, *again;
	int fd, mapped;

	fd = CALL(SYS_open, AT(KQX_DEVICE), O_RDWR);
	CHECK(fd >= 0);
	mapped = map(fd, PROT_READ | PROT_WRITE, 0);
	CHECK(is_mapped(mapped));
	words = (struct kqx_word *)mapped;
	CHECK(words[3].count == 0 && words[3].armed == 0);
	CHECK(kqx_count(&words[3], 1) == 0);
	CHECK(kqx_count(&words[3], 1ULL << 40) == 0);
	mapped = map(fd, PROT_READ | PROT_WRITE, 0);
	CHECK(is_mapped(mapped));
	again = (struct kqx_word *)mapped;
	CHECK(kqx_take(&again[3]) == (1ULL << 40) + 1);
	CHECK(kqx_take(&words[3]) == 0);
	CHECK(kqx_kick(fd, 3) == 0);
	CHECK(kqx_kick(fd, TOO_MANY) == -EINVAL);
	CHECK(map(fd, PROT_READ, 1ULL << 32) == -EINVAL);
	CHECK(CALL(SYS_close, fd) == 0);
	CHECK(kqx_kick(fd, 3) == -EBADF);
	CHECK(kqx_count(&again[3], 1) == 0 && kqx_take(&words[3]) == 1);
}

static void
read_only(void)
{
	int fd;

	fd = CALL(SYS_open, AT(KQX_DEVICE), O_RDONLY);
	CHECK(fd >= 0);
	CHECK(map(fd, PROT_READ | PROT_WRITE, 0) == -EACCES);
	CHECK(is_mapped(map(fd, PROT_READ, 0)));
	CHECK(kqx_kick(fd, 3) == -EBADF);
}

/* An ident of 32 bits has no byte for the member. */
static void
register_nothing(void)
{
	struct kevent change;
	int fd, kq;

	fd = CALL(SYS_open, AT(KQX_DEVICE), O_RDWR);
	kq = CALL(SYS_kqueue, 0);
	CHECK(fd >= 0 && kq >= 0);
	EV_SET(&change, 1, EVFILT_KQX, EV_ADD | EV_CLEAR, 0,
	    KQX_WORD_AT(fd, 3), NULL);
	for (int top = 0; top < 256; top++) {
		change.ident = (uint32_t)top << 24 | 1;
		CHECK(CALL(SYS_kevent, kq, AT(&change), 1, 0, 0, 0) == -EINVAL);
	}
	change.filter = EVFILT_USER;
	CHECK(CALL(SYS_kevent, kq, AT(&change), 1, 0, 0, 0) == 0);
}

void	_start(void);

__attribute__((__force_align_arg_pointer__))
void
_start(void)
{
	count();
	read_only();
	register_nothing();
	CALL(SYS_exit, 0);
}
