#!/usr/sbin/dtrace -s
/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Counts how often each of kqx's probes fires, and how often with the arguments that kqx(4)
 * documents: the ident is that of the knote, and what a change, a kick and an event carry is
 * what the system call carried.  Needs the kernel's types (CTF).
 *
 *	# dtrace -s probes.d -c "kqx-test run"
 */

#pragma D option quiet
#pragma D option cleanrate=999hz
/* The kernel shares this room out to as many CPUs as it was built for, not as there are. */
#pragma D option dynvarsize=32m

/* The number of kevent(2) in the table of system calls. */
inline int KEVENT = 560;

kqx:::attach, kqx:::change, kqx:::expiry, kqx:::deliver, kqx:::detach
{
	this->knote = (struct knote *)arg0;
	this->right = this->knote->kn_kevent.ident == arg1;
}

kqx:::attach
{
	this->right = this->right && (int)arg2 >= 0;
	@errors["attach", (int)arg2] = count();
}

kqx:::change
{
	this->right = this->right && (int)arg4 >= 0;
	@errors["change", (int)arg4] = count();
}

/*
 * The second and third arguments are the list of changes and its length.  The kernel has moved
 * the pointer past the change by now.
 */
kqx:::change
/curthread->td_sa.code == KEVENT && (int)curthread->td_sa.args[2] == 1/
{
	this->change = (struct kevent *)copyin(curthread->td_sa.args[1] -
	    sizeof (struct kevent), sizeof (struct kevent));
	@fired["single"] = count();
	@right["single"] = sum(this->change->fflags == (uint32_t)arg2 &&
	    this->change->data == (int64_t)arg3 ? 1 : 0);
}

kqx:::expiry
{
	@late = quantize(arg2);
}

/* The fifth argument is the length of the list of events. */
kqx:::deliver
/curthread->td_sa.code == KEVENT && (int)curthread->td_sa.args[4] == 1/
{
	/* 0 would be no variable. */
	self->taken = (int64_t)arg2 + 1;
}

/* The third argument of ioctl(2) points to the line.  A page of the pad has 64 lines. */
kqx:::kick
{
	this->line = (uint64_t *)copyin(curthread->td_sa.args[2],
	    sizeof (uint64_t));
	this->right = *this->line == arg1 &&
	    arg1 < ((struct vm_object *)arg0)->size * 64;
}

kqx:::
{
	@fired[probename] = count();
	@right[probename] = sum(this->right ? 1 : 0);
}

/* The fourth argument, the list of events, was moved past the event. */
syscall::kevent:return
/self->taken && arg1 == 1/
{
	this->event = (struct kevent *)copyin(curthread->td_sa.args[3] -
	    sizeof (struct kevent), sizeof (struct kevent));
	@fired["event"] = count();
	@right["event"] = sum(this->event->data + 1 == self->taken ? 1 : 0);
}

syscall::kevent:return
/self->taken/
{
	self->taken = 0;
}

dtrace:::END
{
	printa("%s fired %@d right %@d\n", @fired, @right);
	printa("%s errno %d: %@d\n", @errors);
	printa("ns late:%@d", @late);
}
